"""SSD (Liu et al., 2016) on any base network: torchvision's, on a feature pyramid of ours."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Self

import torch
from jaxtyping import Float, Float16, UInt8
from torch import Tensor, nn
from torchvision.models.detection.anchor_utils import DefaultBoxGenerator
from torchvision.models.detection.image_list import ImageList
from torchvision.models.detection.ssd import SSD, SSDHead
from torchvision.ops import box_iou, clip_boxes_to_image

from univert.core.errors import BadInputError
from univert.detection.boxes import choose
from univert.detection.config import DetectorConfig
from univert.detection.model import Answer, DetectorModel, Target
from univert.detection.pyramid import Pyramid, split_by_stride
from univert.models.base_networks import make_base_network
from univert.models.config import BaseNetworkLearns

SCALES = (0.07, 0.15, 0.3, 0.5, 0.7, 0.88, 1.05)
"""Sides of the default boxes of each map, and of one more, as shares of the photo's: from 22 of 320 px on."""
ASPECTS = (2, 3)
"""How many times longer one side of the oblong default boxes is."""
NEAR_IGNORED = 0.4
"""A default box that shares as much (intersection over union) with something ignored is not taught to be background."""


class SsdDetector(DetectorModel):
    """torchvision's `SSD`: its default boxes, head, matching and loss, on the maps of a base network.

    The base network is cut into parts that end in maps of 1/8, 1/16 and 1/32 of the photo's side. What the parts that
    do not learn make of an image can be kept: `kept_maps` gives it as one flat row at half precision, and `losses` and
    `answers` take such rows in place of images.

    Args:
        config: what to build; its verticals must be set.

    Attributes:
        kept_parts: how many parts' maps a row holds; `trainable` sets it.

    Raises:
        BadInputError: the base network does not exist, has no weights, or has no maps of these sizes.
    """

    pixel_scale: Tensor
    pixel_shift: Tensor
    default_boxes: Tensor

    def __init__(self, config: DetectorConfig) -> None:
        super().__init__(config)
        side = config.image_size_px
        self.base_network = make_base_network(config.base_network, pretrained=config.pretrained, image_size_px=side)
        self._parts = split_by_stride(self.base_network, side)
        self.kept_parts = len(self._parts)
        mean, std = torch.tensor(self.base_network.mean_rgb), torch.tensor(self.base_network.std_rgb)
        self.register_buffer("pixel_scale", (1 / (255 * std)).view(1, 3, 1, 1))
        self.register_buffer("pixel_shift", (-mean / std).view(1, 3, 1, 1))
        image = torch.zeros(2, 3, side, side)
        with torch.inference_mode():
            maps = self.maps(image)
        self._map_shapes = [tuple(one.shape[1:]) for one in maps]
        pyramid = Pyramid([shape[0] for shape in self._map_shapes], config.channels)
        aspects = [list(ASPECTS)] * pyramid.levels
        generator = DefaultBoxGenerator(aspects, scales=list(SCALES))
        self.ssd = SSD(
            backbone=pyramid,
            anchor_generator=generator,
            size=(side, side),
            num_classes=len(config.verticals) + 1,
            head=SSDHead(
                [config.channels] * pyramid.levels, generator.num_anchors_per_location(), len(config.verticals) + 1
            ),
            nms_thresh=config.max_overlap,
            detections_per_img=config.max_items,
        )
        with torch.no_grad():
            levels = pyramid.eval()(maps)
            boxes = generator(ImageList(image[:1], [(side, side)]), levels)[0]
        self.register_buffer("default_boxes", boxes, persistent=False)
        self.ssd.to(memory_format=torch.channels_last)

    def maps(self, images: UInt8[Tensor, "B 3 S S"]) -> list[Float[Tensor, "B C H W"]]:
        """What each part of the base network makes of prepared images, the largest map first."""
        images = images.contiguous(memory_format=torch.channels_last)
        return self._run([], torch.mul(images, self.pixel_scale).add_(self.pixel_shift))

    def kept_maps(self, images: UInt8[Tensor, "B 3 S S"]) -> Float16[Tensor, "B W"]:
        """The maps of the parts that do not learn, a flat row an image.

        Raises:
            BadInputError: they are too large for half precision.
        """
        rows = torch.cat([one.flatten(1) for one in self.maps(images)[: self.kept_parts]], 1).half()
        if not rows.isfinite().all():
            raise BadInputError(f"{self.config.base_network} gives maps beyond half precision; take another network")
        return rows

    @property
    def row_size(self) -> int:
        """Numbers in a row of `kept_maps`."""
        return sum(torch.Size(shape).numel() for shape in self._map_shapes[: self.kept_parts])

    def outputs(self, inputs: Tensor) -> dict[str, Tensor]:
        """What torchvision's head says of images or rows: `bbox_regression` (B, A, 4), `cls_logits` (B, A, K + 1)."""
        if inputs.ndim == 2:
            shapes = self._map_shapes[: self.kept_parts]
            parts = inputs.split([torch.Size(shape).numel() for shape in shapes], 1)
            maps = [
                part.view(-1, *shape).float().contiguous(memory_format=torch.channels_last)
                for part, shape in zip(parts, shapes, strict=True)
            ]
            maps = self._run(maps, maps[-1])
        else:
            maps = self.maps(inputs)
        found: dict[str, Tensor] = self.ssd.head(self.ssd.backbone(maps))
        return found

    def losses(self, inputs: Tensor, targets: Sequence[Target]) -> Float[Tensor, "2"]:
        """Of boxes and of labels; see `DetectorModel.losses`. Matching and loss are torchvision's.

        Default boxes near something ignored learn nothing, unless an item is matched to them.
        """
        boxes = self.default_boxes
        matched = [
            self.ssd.proposal_matcher(box_iou(one["boxes"], boxes))
            if len(one["boxes"])
            else torch.full((len(boxes),), -1, dtype=torch.int64, device=boxes.device)
            for one in targets
        ]
        found = self.outputs(inputs)
        certain = torch.zeros_like(found["cls_logits"])  # the loss of what counts as certain background is zero
        for row, (one, match) in enumerate(zip(targets, matched, strict=True)):
            if len(one.get("ignored", ())):
                near = box_iou(one["ignored"], boxes).amax(0) >= NEAR_IGNORED
                certain[row, near & (match < 0), 0] = 1e4
        found["cls_logits"] = found["cls_logits"] + certain
        terms = self.ssd.compute_loss(list(targets), found, [boxes] * len(targets), matched)
        return torch.stack([terms["bbox_regression"], terms["classification"]])

    def forward(self, inputs: Tensor) -> tuple[Float[Tensor, "B A 4"], Float[Tensor, "B A K"]]:
        """The default boxes as moved for each image, within the square, and each label's score without background."""
        found = self.outputs(inputs)
        side = self.config.image_size_px
        moves = found["bbox_regression"]
        boxes = self.ssd.box_coder.decode_single(moves.flatten(0, 1), self.default_boxes.expand_as(moves).flatten(0, 1))
        boxes = clip_boxes_to_image(boxes, (side, side)).view_as(moves)
        return boxes, found["cls_logits"].softmax(-1)[..., 1:]

    def answers(self, inputs: Tensor, least_score: float) -> list[Answer]:
        """See `DetectorModel.answers`."""
        self.eval()
        with torch.inference_mode():
            boxes, scores = (one.float().cpu().numpy() for one in self(inputs))
        config = self.config
        return [
            choose(*one, least_score=least_score, max_overlap=config.max_overlap, max_items=config.max_items)
            for one in zip(boxes, scores, strict=True)
        ]

    def trainable(self, base_network_learns: BaseNetworkLearns = "no", last_blocks: int = 1) -> list[dict[str, Any]]:
        """Choose what learns besides pyramid and head: of the base network nothing, its last parts, or all of it.

        Raises:
            BadInputError: more parts than there are.
        """
        if base_network_learns == "last_blocks" and not 1 <= last_blocks <= len(self._parts):
            raise BadInputError(f"last_blocks must lie in 1..{len(self._parts)} for an SSD, got {last_blocks}")
        count = {"no": 0, "last_blocks": last_blocks, "all": len(self._parts)}[base_network_learns]
        self.kept_parts = len(self._parts) - count
        for parameter in self.base_network.parameters():
            parameter.requires_grad_(False)
        learning: list[nn.Parameter] = []
        for part in self._parts[self.kept_parts :]:
            learning += part.parameters()
        for parameter in learning:
            parameter.requires_grad_(True)
        groups = {"head": list(self.ssd.parameters()), "base network": learning}
        return [{"name": name, "params": parameters} for name, parameters in groups.items() if parameters]

    def train(self, mode: bool = True) -> Self:
        """Set training mode; the base network's batch normalisation keeps its statistics: batches are small."""
        super().train(mode)
        self.base_network.eval()
        return self

    def _run(self, maps: list[Tensor], last: Tensor) -> list[Tensor]:
        """The maps of all parts, from those of the first few and what the next part takes."""
        for part in self._parts[len(maps) :]:
            last = part(last)
            maps.append(last)
        return maps
