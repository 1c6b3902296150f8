"""Detectors in PyTorch: what training needs of any of them, how they are saved and loaded, and those of torchvision."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar

import torch
import torchvision
from jaxtyping import Float
from torch import Tensor

from univert.core.errors import BadInputError, did_you_mean
from univert.detection.boxes import Answer, one_label
from univert.detection.config import DetectorConfig
from univert.models.card import ModelCard
from univert.models.config import BaseNetworkLearns
from univert.models.io import SavedModel, read_model

Target = dict[str, Tensor]
"""Of one image: `boxes` (N, 4), x0, y0, x1, y1 in pixels of the network's square; `labels` (N,), from 1; and, if any,
`ignored` (M, 4), boxes of what is neither an item nor background."""


@dataclass(frozen=True, kw_only=True)
class DetectorCard(ModelCard):
    """The card of a detector; see `ModelCard`."""

    TASK: ClassVar[str] = "object-detection"
    ABOUT: ClassVar[str] = (
        "An item detector made with Univert: it finds the items in a photo, with the vertical of each."
    )
    USE: ClassVar[str] = """from univert.detection import load_detector

detector = load_detector("path/to/this/folder")
found = detector.detect_files(["photo.jpg"])"""
    name: str = "Univert detector"


class DetectorModel(SavedModel, ABC):
    """A detector in PyTorch.

    Attributes:
        config: what it is made of.
        preprocessing: from a photo to the network's square.
    """

    CARD = DetectorCard

    def __init__(self, config: DetectorConfig) -> None:
        super().__init__()
        if not config.verticals:
            raise BadInputError("a detector needs at least one vertical to tell from the background")
        self.config, self.preprocessing = config, config.preprocessing()

    @abstractmethod
    def losses(self, inputs: Tensor, targets: Sequence[Target]) -> Float[Tensor, "L"]:
        """The terms of the loss over a batch of prepared images, or of what is kept of them, with gradients."""

    @abstractmethod
    def answers(self, inputs: Tensor) -> list[Answer]:
        """What is found in each image of a batch, in pixels of the network's square, without gradients."""

    @abstractmethod
    def trainable(self, base_network_learns: BaseNetworkLearns, last_blocks: int) -> list[dict[str, Any]]:
        """Choose what learns; see `univert.models.embedder.Embedder.trainable`."""


class TorchvisionDetector(DetectorModel):
    """Any model of `torchvision.models.detection` by name, without weights; all of it learns, from the start.

    Those that learn masks or keypoints as well are left out: scenes have none.

    Raises:
        BadInputError: torchvision has no such model.
    """

    def __init__(self, config: DetectorConfig) -> None:
        super().__init__(config)
        models = torchvision.models.list_models(module=torchvision.models.detection)
        known = [name for name in models if not name.startswith(("maskrcnn", "keypointrcnn"))]
        if config.network not in known:
            hint = did_you_mean(config.network, ["ssd", *known])
            raise BadInputError(f"network: torchvision has no {config.network!r}; {hint}")
        self.model = torchvision.models.get_model(
            config.network, weights=None, weights_backbone=None, num_classes=len(config.verticals) + 1
        )
        side = config.image_size_px
        self.model.transform.min_size, self.model.transform.max_size = (side,), side
        self.model.transform.fixed_size = (side, side)

    def losses(self, inputs: Tensor, targets: Sequence[Target]) -> Float[Tensor, "L"]:
        """See `DetectorModel.losses`."""
        shown = [{name: one[name] for name in ("boxes", "labels")} for one in targets]
        terms: dict[str, Tensor] = self.model(list(inputs / 255), shown)
        return torch.stack(list(terms.values()))

    def answers(self, inputs: Tensor) -> list[Answer]:
        """See `DetectorModel.answers`."""
        with torch.inference_mode():
            found = self.model(list(inputs / 255))
        names, count = ("boxes", "scores", "labels"), len(self.config.verticals)
        columns = ([one[name].cpu().numpy() for name in names] for one in found)
        return [one_label(boxes, scores, labels - 1, count) for boxes, scores, labels in columns]

    def trainable(self, base_network_learns: BaseNetworkLearns = "no", last_blocks: int = 1) -> list[dict[str, Any]]:
        """All of it learns, whatever is asked for."""
        return [{"name": "head", "params": list(self.parameters())}]


def make_detector(config: DetectorConfig) -> DetectorModel:
    """The detector that a configuration describes, untrained.

    Raises:
        BadInputError: there is no such network, or it cannot be had.
    """
    from univert.detection.ssd import SsdDetector

    return SsdDetector(config) if config.network == "ssd" else TorchvisionDetector(config)


def load_detector_model(folder: Path | str) -> DetectorModel:
    """Load a saved detector, in evaluation mode, on the CPU.

    Raises:
        BadInputError: there is no detector, or its files are incomplete, damaged or do not fit together.
    """
    config, weights = read_model(Path(folder), config_type=DetectorConfig)
    with torch.random.fork_rng(devices=[]):
        model = make_detector(replace(config, pretrained=False))
    return model.filled_from(config, weights, folder)
