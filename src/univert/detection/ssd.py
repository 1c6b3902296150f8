"""SSD (Liu et al., 2016) on any base network: torchvision's, on a feature pyramid of ours; and its ONNX file."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Self

import numpy as np
import torch
from jaxtyping import Float, Float16, UInt8
from torch import Tensor, nn
from torch.nn.functional import interpolate
from torchvision.models.detection.anchor_utils import DefaultBoxGenerator
from torchvision.models.detection.image_list import ImageList
from torchvision.models.detection.ssd import SSD
from torchvision.ops import box_iou, clip_boxes_to_image

from univert.core.config import to_plain
from univert.core.errors import BadInputError
from univert.core.files import write_atomic
from univert.detection.boxes import Answer
from univert.detection.config import DetectorConfig
from univert.detection.engine import BOXES, FORMAT, INPUT, KIND, SCORES
from univert.detection.model import DetectorModel, Target, load_detector_model
from univert.models.base_networks import make_base_network
from univert.models.base_networks.base import BaseNetwork
from univert.models.config import BaseNetworkLearns
from univert.models.runtime.engine import ONNX_FILE, open_session
from univert.models.runtime.onnx_export import ExportError, to_onnx, with_metadata

STRIDES = (8, 16, 32)
"""How many of the photo's pixels a pixel of each map stands for."""
EXTRA_LEVELS = 3
"""Maps below the base network's own, each of half the size of the one before."""
SCALES = (0.07, 0.15, 0.3, 0.5, 0.7, 0.88, 1.05)
"""Sides of the default boxes of each map, and of one more, as shares of the photo's: from 27 of 384 px on."""
ASPECTS = (2, 3)
"""How many times longer one side of the oblong default boxes is."""
NEAR_IGNORED = 0.4
"""A default box that shares as much (intersection over union) with something ignored is not taught to be background."""
MAX_SCORE_DIFFERENCE = 1e-4
MAX_BOX_DIFFERENCE_PX = 0.05
"""How far what an exported detector gives may be from PyTorch's."""


def split_by_stride(network: BaseNetwork, image_size_px: int) -> list[nn.Sequential]:
    """A base network in parts that run one after the other, each up to its last map of one of the `STRIDES`.

    They share the network's modules.

    Raises:
        BadInputError: the network has no maps of these sizes.
    """
    parts = network.parts()
    ends: dict[int, int] = {}
    maps: Tensor = torch.zeros(2, 3, image_size_px, image_size_px)
    try:
        with torch.inference_mode():
            expected = network(maps)
            for end, part in enumerate(parts, start=1):
                maps = part(maps)
                for stride in STRIDES:
                    if maps.ndim == 4 and abs(maps.shape[2] - -(-image_size_px // stride)) <= 1:
                        ends[stride] = end
                        break
        whole = maps.shape == expected.shape and torch.allclose(maps, expected, rtol=1e-3, atol=1e-3)
    except Exception:  # modules that do not fit one behind the other may raise whatever they like
        whole = False
    if not whole or list(ends) != list(STRIDES):
        raise BadInputError(
            "base_network: an SSD needs a network that runs its layers one after the other, with maps of "
            f"1/{', 1/'.join(map(str, STRIDES))} of the photo's side; take efficientnet_lite0, inception_v2 or a "
            "ResNet of timm"
        )
    starts = [0, *ends.values()]
    return [nn.Sequential(*parts[start:end]) for start, end in zip(starts, ends.values(), strict=False)]


class Pyramid(nn.Module):
    """Maps of one width at all sizes, what the small ones know added to the large ones (Lin et al., 2017).

    Args:
        sizes: channels of the base network's maps, the largest map first.
        channels: of every map that comes out.

    Attributes:
        out_channels: of each map that comes out, as torchvision's `SSD` asks for them.
    """

    def __init__(self, sizes: Sequence[int], channels: int) -> None:
        super().__init__()
        self.lateral = nn.ModuleList(_conv(size, channels, 1) for size in sizes)
        self.smooth = nn.ModuleList(_conv(channels, channels, 3) for _ in sizes)
        self.extra = nn.ModuleList(_conv(channels, channels, 3, stride=2) for _ in range(EXTRA_LEVELS))
        self.out_channels = [channels] * (len(sizes) + EXTRA_LEVELS)

    def forward(self, maps: Sequence[Float[Tensor, "B C H W"]]) -> list[Float[Tensor, "B D H W"]]:
        """Richer maps from those of the base network, the largest first, and the smaller ones after them."""
        levels = [layer(one) for layer, one in zip(self.lateral, maps, strict=True)]
        for place in reversed(range(len(levels) - 1)):
            levels[place] = levels[place] + interpolate(levels[place + 1], size=levels[place].shape[2:])
        levels = [layer(one) for layer, one in zip(self.smooth, levels, strict=True)]
        for layer in self.extra:
            levels.append(layer(levels[-1]))
        return levels


def _conv(size: int, channels: int, kernel: int, stride: int = 1) -> nn.Sequential:
    """A convolution, depthwise and then pointwise where it is wider than a pixel, with norm and activation."""
    layers: list[nn.Module] = []
    if kernel > 1:
        layers.append(nn.Conv2d(size, size, kernel, stride, kernel // 2, groups=size, bias=False))
    layers.append(nn.Conv2d(size, channels, 1, bias=False))
    return nn.Sequential(*layers, nn.BatchNorm2d(channels), nn.ReLU())


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

    default_boxes: Tensor

    def __init__(self, config: DetectorConfig) -> None:
        super().__init__(config)
        side = config.image_size_px
        self.base_network = make_base_network(config.base_network, pretrained=config.pretrained, image_size_px=side)
        self._parts = split_by_stride(self.base_network, side)
        self.kept_parts = len(self._parts)
        image = torch.zeros(2, 3, side, side)
        with torch.inference_mode():
            maps = self._run([], image)
        self._map_shapes = [one.shape[1:] for one in maps]
        pyramid = Pyramid([shape[0] for shape in self._map_shapes], config.channels)
        generator = DefaultBoxGenerator([list(ASPECTS)] * len(pyramid.out_channels), scales=list(SCALES))
        self.ssd = SSD(
            pyramid,
            generator,
            (side, side),
            num_classes=len(config.verticals) + 1,
            image_mean=list(self.base_network.mean_rgb),
            image_std=list(self.base_network.std_rgb),
        )
        with torch.inference_mode():
            boxes = generator(ImageList(image[:1], [(side, side)]), pyramid.eval()(maps))[0]
        self.register_buffer("default_boxes", boxes.clone(), persistent=False)
        self.ssd.to(memory_format=torch.channels_last)

    def maps(self, images: UInt8[Tensor, "B 3 S S"]) -> list[Float[Tensor, "B C H W"]]:
        """What each part of the base network makes of prepared images, the largest map first."""
        images = images.contiguous(memory_format=torch.channels_last)
        return self._run([], self.ssd.transform.normalize(images / 255))

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
    def kept_sizes(self) -> list[int]:
        """Numbers of each map in a row of `kept_maps`."""
        return [shape.numel() for shape in self._map_shapes[: self.kept_parts]]

    def outputs(self, inputs: Tensor) -> dict[str, Tensor]:
        """What torchvision's head says of images or rows: `bbox_regression` (B, A, 4), `cls_logits` (B, A, K + 1)."""
        if inputs.ndim == 2:
            maps = [
                part.unflatten(1, shape).float().contiguous(memory_format=torch.channels_last)
                for part, shape in zip(inputs.split(self.kept_sizes, 1), self._map_shapes, strict=False)
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
        boxes, found = self.default_boxes, self.outputs(inputs)
        matched = []
        certain = torch.zeros_like(found["cls_logits"])  # the loss of what counts as certain background is zero
        for row, one in enumerate(targets):
            match = torch.full((len(boxes),), -1, dtype=torch.int64, device=boxes.device)
            if len(one["boxes"]):
                match = self.ssd.proposal_matcher(box_iou(one["boxes"], boxes))
            if len(one.get("ignored", ())):
                near = box_iou(one["ignored"], boxes).amax(0) >= NEAR_IGNORED
                certain[row, near & (match < 0), 0] = 1e4
            matched.append(match)
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

    def answers(self, inputs: Tensor) -> list[Answer]:
        """See `DetectorModel.answers`: of all default boxes."""
        with torch.inference_mode():
            boxes, scores = (one.float().cpu().numpy() for one in self(inputs))
        return list(zip(boxes, scores, strict=True))

    def trainable(self, base_network_learns: BaseNetworkLearns = "no", last_blocks: int = 1) -> list[dict[str, Any]]:
        """Choose what learns besides pyramid and head: of the base network nothing, its last parts, or all of it.

        Raises:
            BadInputError: more parts than there are.
        """
        if base_network_learns == "last_blocks" and not 1 <= last_blocks <= len(self._parts):
            raise BadInputError(f"last_blocks must lie in 1..{len(self._parts)} for an SSD, got {last_blocks}")
        count = {"no": 0, "last_blocks": last_blocks, "all": len(self._parts)}[base_network_learns]
        self.kept_parts = len(self._parts) - count
        learning = list(nn.ModuleList(self._parts[self.kept_parts :]).parameters())
        self.base_network.requires_grad_(False)
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


def export_detector(folder: Path | str) -> Path:
    """Export a saved SSD: prepared photos in; boxes and scores out, before non-maximum suppression.

    Args:
        folder: where the model is; `model.onnx` goes there too, whole or not at all.

    Raises:
        BadInputError: no such model.
        ExportError: ONNX cannot express the model, or not exactly. No file is written.
    """
    model = load_detector_model(folder)
    about = {
        "format": FORMAT,
        "kind": KIND,
        "fingerprint": model.fingerprint,
        "config": json.dumps(to_plain(model.config), sort_keys=True),
    }
    side = model.config.image_size_px
    content = with_metadata(to_onnx(model, side, [BOXES, SCORES]), about)
    images = np.random.default_rng(0).integers(0, 256, (3, 3, side, side), dtype=np.uint8)
    images[0] = 255
    with torch.inference_mode():
        wanted = [one.numpy() for one in model(torch.from_numpy(images))]
    found = open_session(content, 1).run([BOXES, SCORES], {INPUT: images})
    apart = [float(np.abs(one - other).max()) for one, other in zip(found, wanted, strict=True)]
    if not (apart[0] <= MAX_BOX_DIFFERENCE_PX and apart[1] <= MAX_SCORE_DIFFERENCE):  # true for NaN, too
        raise ExportError(
            f"the exported detector differs from PyTorch's by {apart[0]:.2g} px and {apart[1]:.2g} of a score; "
            "it runs with PyTorch"
        )
    path = Path(folder) / ONNX_FILE
    write_atomic(path, content)
    return path
