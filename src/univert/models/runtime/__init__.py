"""A model at work without training: ONNX Runtime, PyTorch, and the export from one to the other."""

from univert.core.lazy import lazy_exports

__getattr__, __dir__, __all__ = lazy_exports(
    __name__,
    {
        "Engine": "univert.models.runtime.engine",
        "export_int8": "univert.models.runtime.int8",
        "export_onnx": "univert.models.runtime.onnx_export",
        "load_engine": "univert.models.runtime.engine",
    },
)
