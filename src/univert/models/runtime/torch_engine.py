"""The PyTorch engine: what serves where ONNX Runtime cannot."""

from __future__ import annotations

import numpy as np
import torch
from jaxtyping import Float, UInt8

from univert.models.embedder import Embedder
from univert.models.runtime.engine import Engine, check_pixels


class TorchEngine(Engine):
    """An engine over a model in memory, on whatever device it is.

    Args:
        model: the model; it is put into evaluation mode.
        threads: threads that PyTorch computes with, in the whole process; None leaves them as they are.
    """

    def __init__(self, model: Embedder, *, threads: int | None = None) -> None:
        if threads is not None:
            torch.set_num_threads(threads)
        self._model = model.eval()
        self.name, self.size, self.fingerprint = "torch", model.size, model.fingerprint
        self.preprocessing = model.preprocessing

    def run(self, batch: UInt8[np.ndarray, "B 3 S S"]) -> Float[np.ndarray, "B D"]:
        """Unit vectors of prepared images."""
        pixels = torch.from_numpy(np.ascontiguousarray(check_pixels(batch, self.image_size_px)))
        if not len(pixels):
            return np.empty((0, self.size), np.float32)
        with torch.inference_mode():
            features = self._model.inference_features(pixels.to(self._model.device))
            vectors: np.ndarray = self._model.project(features).float().cpu().numpy()
        return vectors
