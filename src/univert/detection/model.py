"""Detectors in PyTorch: what training needs of any of them, and how they are saved and loaded."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar, TypeVar

import numpy as np
import torch
from jaxtyping import Float, Int64, UInt8
from torch import Tensor, nn

from univert.core.errors import BadInputError
from univert.detection.boxes import Boxes
from univert.detection.config import DetectorConfig
from univert.models.card import ModelCard
from univert.models.config import BaseNetworkLearns
from univert.models.io import StoredConfig, model_fingerprint, read_model, write_model

Target = dict[str, Tensor]
"""Of one image: `boxes` (N, 4), x0, y0, x1, y1 in pixels of the network's square; `labels` (N,), from 1; and, if any,
`ignored` (M, 4), boxes of what is neither an item nor background."""
Answer = tuple[Boxes, Float[np.ndarray, "N"], Int64[np.ndarray, "N"]]
"""Of one image: boxes in pixels of the network's square, scores, and labels from 0; the surest first."""

M = TypeVar("M", bound="DetectorModel")


@dataclass(frozen=True, kw_only=True)
class StoredDetector(StoredConfig):
    """What a detector's `config.json` holds."""

    config: DetectorConfig


@dataclass(frozen=True, kw_only=True)
class DetectorCard(ModelCard):
    """The card of a detector; see `ModelCard`."""

    name: str = "Univert detector"
    TEMPLATE: ClassVar[str] = """---
library_name: univert
pipeline_tag: object-detection
tags:
- visual-search
---

# {name}

An item detector made with Univert: it finds the items in a photo, with the vertical of each. Its preprocessing is part
of it.

## Use

```python
from univert.detection import load_detector

detector = load_detector("path/to/this/folder")
found = detector.detect_files(["photo.jpg"])
```

## Data

{data}

## Measured figures

{figures}

## Configuration

```json
{config}
```

## Recipe

{recipe}
"""


class DetectorModel(nn.Module, ABC):
    """A detector in PyTorch.

    Attributes:
        config: what it is made of.
        preprocessing: from a photo to the network's square.
    """

    def __init__(self, config: DetectorConfig) -> None:
        super().__init__()
        if not config.verticals:
            raise BadInputError("a detector needs at least one vertical to tell from the background")
        self.config, self.preprocessing = config, config.preprocessing()

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return next(self.parameters()).device

    @abstractmethod
    def losses(self, inputs: Tensor, targets: Sequence[Target]) -> Float[Tensor, "L"]:
        """The terms of the loss over a batch of prepared images, or of what is kept of them, with gradients."""

    @abstractmethod
    def answers(self, inputs: Tensor, least_score: float) -> list[Answer]:
        """What is found in each image of a batch, without gradients."""

    @abstractmethod
    def trainable(self, base_network_learns: BaseNetworkLearns, last_blocks: int) -> list[dict[str, Any]]:
        """Choose what learns; see `univert.models.embedder.Embedder.trainable`."""

    @property
    def fingerprint(self) -> str:
        """A hash of configuration and weights."""
        return model_fingerprint(self.config, self._weights())

    def save_pretrained(self, folder: Path | str, card: ModelCard | None = None, *, overwrite: bool = False) -> Path:
        """Write `config.json`, `model.safetensors` and `README.md`, all or nothing; no pickle.

        Raises:
            BadInputError: `folder` exists and `overwrite` is false.
            OSError: the disk is full or not writable; nothing is left behind.
        """
        write_model(Path(folder), self.config, self._weights(), card or DetectorCard(), overwrite=overwrite)
        return Path(folder).absolute()

    def _weights(self) -> dict[str, Tensor]:
        return {name: value.detach().cpu().contiguous() for name, value in self.state_dict().items()}


def make_detector(config: DetectorConfig) -> DetectorModel:
    """The detector that a configuration describes, untrained.

    Raises:
        BadInputError: there is no such network, or it cannot be had.
    """
    if config.network == "ssd":
        from univert.detection.ssd import SsdDetector

        return SsdDetector(config)
    from univert.detection.torchvision_model import TorchvisionDetector

    return TorchvisionDetector(config)


def load_detector_model(folder: Path | str) -> DetectorModel:
    """Load a saved detector, in evaluation mode, on the CPU.

    Raises:
        BadInputError: there is no detector, or its files are incomplete, damaged or do not fit together.
    """
    config, weights = read_model(Path(folder), stored=StoredDetector)
    with torch.random.fork_rng(devices=[]):
        model = make_detector(replace(config, pretrained=False))
    model.config = config
    try:
        model.load_state_dict(weights)
    except RuntimeError as error:
        detail = " ".join(str(error).split())[:300]
        raise BadInputError(f"{folder}: weights and configuration do not fit: {detail}") from None
    return model.eval()


def as_batch(images: UInt8[np.ndarray, "B 3 S S"], device: torch.device) -> UInt8[Tensor, "B 3 S S"]:
    """Prepared images as a tensor stored channels last."""
    return torch.from_numpy(images).to(device).contiguous(memory_format=torch.channels_last)
