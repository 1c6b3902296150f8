from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torchvision.models.detection.ssd import SSD
from torchvision.ops import box_iou

from tests.detection.rooms import CONFIG
from univert.core.errors import BadInputError
from univert.detection.config import DetectorConfig
from univert.detection.model import make_detector
from univert.detection.ssd import NEAR_IGNORED, SsdDetector, split_by_stride
from univert.models.base_networks import make_base_network


def images_and_targets(count: int = 3) -> tuple[Tensor, list[dict[str, Tensor]]]:
    images = torch.randint(0, 256, (count, 3, 64, 64), dtype=torch.uint8)
    shown = {"boxes": torch.tensor([[4.0, 4, 30, 28], [20, 22, 60, 60]]), "labels": torch.tensor([1, 2])}
    nothing = {"boxes": torch.zeros(0, 4), "labels": torch.zeros(0, dtype=torch.int64)}
    return images, [shown if number else nothing for number in range(count)]


@pytest.mark.parametrize(
    ("name", "size"), [("efficientnet_lite0", 160), ("inception_v2", 96), ("timm/test_resnet", 64)]
)
def test_base_networks_are_cut_where_their_maps_halve(name: str, size: int) -> None:
    network = make_base_network(name, pretrained=False, image_size_px=size)
    maps = torch.randn(2, 3, size, size)
    with torch.inference_mode():
        expected = network(maps)
        for part, stride in zip(split_by_stride(network, size), (8, 16, 32), strict=True):
            maps = part(maps)
            assert abs(maps.shape[2] - size / stride) <= 1
    torch.testing.assert_close(maps, expected, rtol=1e-3, atol=1e-4)


def test_networks_without_such_maps_are_refused() -> None:
    with pytest.raises(BadInputError, match="take efficientnet_lite0"):
        SsdDetector(DetectorConfig(base_network="timm/test_vit", pretrained=False, verticals=("a",), image_size_px=160))
    with pytest.raises(BadInputError, match="at least one vertical"):
        make_detector(DetectorConfig(pretrained=False))


@pytest.mark.parametrize("learns", ["no", "last_blocks"])
def test_kept_maps_stand_for_the_images(model: SsdDetector, learns: str) -> None:
    model.trainable(learns, 1)  # type: ignore[arg-type]
    images, targets = images_and_targets()
    with torch.no_grad():
        rows = model.kept_maps(images)
        assert rows.shape == (3, sum(model.kept_sizes))
        torch.testing.assert_close(model.losses(rows, targets), model.losses(images, targets), rtol=1e-2, atol=1e-2)


def test_what_is_frozen_does_not_learn(model: SsdDetector) -> None:
    images, targets = images_and_targets()
    for learns, count in (("no", 0), ("last_blocks", 1), ("all", 3)):
        groups = {group["name"]: group["params"] for group in model.trainable(learns, 1)}  # type: ignore[arg-type]
        model.zero_grad()
        model.train().losses(images, targets).sum().backward()
        assert all(parameter.grad is not None for parameter in groups["head"])
        moved = [p for p in model.base_network.parameters() if p.grad is not None]
        assert {id(p) for p in moved} == {id(p) for p in groups.get("base network", [])}
        assert bool(moved) == bool(count)
        assert not any(module.training for module in model.base_network.modules())
    with pytest.raises(BadInputError, match=r"last_blocks must lie in 1\.\.3"):
        model.trainable("last_blocks", 4)


class WholeBackbone(torch.nn.Module):
    """A detector's base network and pyramid as the one backbone that torchvision's SSD has."""

    def __init__(self, model: SsdDetector) -> None:
        super().__init__()
        self.model = model

    def forward(self, pixels: Tensor) -> dict[str, Tensor]:
        levels = self.model.ssd.backbone(self.model.maps((pixels * 255).round().to(torch.uint8)))
        return {str(number): level for number, level in enumerate(levels)}


def test_the_loss_is_that_of_torchvisions_whole_ssd(model: SsdDetector) -> None:
    """The same layers in torchvision's own forward, which resizes, matches and sums by itself."""
    images, targets = images_and_targets()
    whole = SSD(
        WholeBackbone(model),
        model.ssd.anchor_generator,
        (64, 64),
        len(CONFIG.verticals) + 1,
        image_mean=[0.0] * 3,
        image_std=[1.0] * 3,
        head=model.ssd.head,
    )
    theirs = whole.train()([image / 255 for image in images], targets)
    ours = model.train().losses(images, targets)
    torch.testing.assert_close(ours, torch.stack([theirs["bbox_regression"], theirs["classification"]]))


def test_nothing_is_learned_near_what_is_ignored(model: SsdDetector, monkeypatch: pytest.MonkeyPatch) -> None:
    images, targets = images_and_targets(2)
    logits = torch.zeros(2, len(model.default_boxes), 3, requires_grad=True)
    moves = torch.zeros(2, len(model.default_boxes), 4)
    monkeypatch.setattr(model, "outputs", lambda inputs: {"bbox_regression": moves, "cls_logits": logits})
    hidden = torch.tensor([[0.0, 0, 64, 64]])
    matched = model.ssd.proposal_matcher(box_iou(targets[1]["boxes"], model.default_boxes)) >= 0
    near = (box_iou(hidden, model.default_boxes)[0] >= NEAR_IGNORED) & ~matched
    assert near.any()
    for ignored in (hidden, torch.zeros(0, 4)):
        (gradient,) = torch.autograd.grad(
            model.losses(images, [targets[0], {**targets[1], "ignored": ignored}])[1], logits
        )
        assert (gradient[1, matched] != 0).any(1).all()
        assert not len(ignored) or not gradient[1, near].any()
