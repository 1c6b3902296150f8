"""Any detection model of torchvision by name, as a detector: it learns from the start, all of it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import torchvision
from jaxtyping import Float
from torch import Tensor

from univert.core.errors import BadInputError, did_you_mean
from univert.detection.config import DetectorConfig
from univert.detection.model import Answer, DetectorModel, Target
from univert.models.config import BaseNetworkLearns


class TorchvisionDetector(DetectorModel):
    """A model of `torchvision.models.detection`, without weights.

    Raises:
        BadInputError: torchvision has no such model.
    """

    def __init__(self, config: DetectorConfig) -> None:
        super().__init__(config)
        known = torchvision.models.list_models(module=torchvision.models.detection)
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

    def answers(self, inputs: Tensor, least_score: float) -> list[Answer]:
        """See `DetectorModel.answers`."""
        self.eval()
        answers = []
        with torch.inference_mode():
            for found in self.model(list(inputs / 255)):
                kept = (found["scores"] > least_score) & (found["labels"] > 0)
                boxes, scores, labels = (found[name][kept].cpu().numpy() for name in ("boxes", "scores", "labels"))
                answers.append((boxes, scores, labels - 1))
        return answers

    def trainable(self, base_network_learns: BaseNetworkLearns = "no", last_blocks: int = 1) -> list[dict[str, Any]]:
        """All of it learns, whatever is asked for."""
        return [{"name": "head", "params": list(self.parameters())}]
