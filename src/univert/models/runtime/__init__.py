"""A model at work without training: ONNX Runtime, PyTorch, and the export from one to the other."""
