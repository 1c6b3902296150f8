"""The PyTorch engine: what serves where ONNX Runtime cannot."""

from __future__ import annotations

import numpy as np
import torch
from jaxtyping import Float, UInt8
from PIL import Image

from univert.data.transforms import Preprocessing
from univert.models.embedder import Embedder
from univert.models.runtime.pixels import check_pixels, prepare_image


class TorchEngine:
    """An `univert.models.runtime.engine.Engine` over a model in memory, on whatever device it is.

    Args:
        model: the model; it is put into evaluation mode.
        threads: threads that PyTorch computes with, in the whole process; None leaves them as they are.
    """

    name = "torch"

    def __init__(self, model: Embedder, *, threads: int | None = None) -> None:
        if threads is not None:
            torch.set_num_threads(threads)
        self._model = model.eval()
        self._fingerprint = model.fingerprint

    @property
    def size(self) -> int:
        """Length D of a vector."""
        return self._model.size

    @property
    def fingerprint(self) -> str:
        """Of the model."""
        return self._fingerprint

    @property
    def image_size_px(self) -> int:
        """Side S of the square that the network sees."""
        return self._model.preprocessing.image_size_px

    @property
    def preprocessing(self) -> Preprocessing:
        """The model's own way from an upright image to the square."""
        return self._model.preprocessing

    def prepare(self, image: Image.Image) -> UInt8[np.ndarray, "3 S S"]:
        """An upright RGB image as what the network sees; see `univert.models.runtime.pixels.prepare_image`."""
        return prepare_image(self._model.preprocessing, image)

    def run(self, batch: UInt8[np.ndarray, "B 3 S S"]) -> Float[np.ndarray, "B D"]:
        """Unit vectors of prepared images.

        Raises:
            BadInputError: see `univert.models.runtime.pixels.check_pixels`.
        """
        pixels = torch.from_numpy(np.ascontiguousarray(check_pixels(batch, self.image_size_px)))
        if not len(pixels):
            return np.empty((0, self.size), np.float32)
        with torch.inference_mode():
            features = self._model.inference_features(pixels.to(self._model.device))
            vectors: np.ndarray = self._model.project(features).float().cpu().numpy()
        return vectors
