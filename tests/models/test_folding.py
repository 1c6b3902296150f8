import copy

import pytest
import torch
from torch import nn

from univert.models import folding
from univert.models.config import EmbedderConfig
from univert.models.embedder import Embedder
from univert.models.folding import fold_batch_norms

IMAGES = torch.randint(0, 256, (3, 3, 64, 64), dtype=torch.uint8, generator=torch.Generator().manual_seed(1))


def network(name: str) -> Embedder:
    """A base network whose batch normalisations have seen something."""
    torch.manual_seed(0)
    model = Embedder(EmbedderConfig(base_network=name, pretrained=False, size=None, image_size_px=64)).train()
    with torch.no_grad():
        for _ in range(3):
            model.features(IMAGES)
    return model.eval()


@pytest.mark.parametrize("name", ["efficientnet_lite0", "timm/test_resnet", "timm/test_efficientnet", "timm/test_vit"])
def test_a_folded_network_gives_the_same_features(name: str) -> None:
    size = 160 if "vit" in name else 64
    torch.manual_seed(0)
    model = (
        network(name)
        if size == 64
        else Embedder(EmbedderConfig(base_network=name, pretrained=False, size=None, image_size_px=size))
    )
    before = copy.deepcopy(model.state_dict())
    folded = fold_batch_norms(model)
    images = torch.randint(0, 256, (3, 3, size, size), dtype=torch.uint8)
    torch.testing.assert_close(
        folded.inference_features(images), model.eval().inference_features(images), rtol=1e-3, atol=1e-4
    )
    assert all(value.equal(before[name]) for name, value in model.state_dict().items())
    if "vit" not in name:
        assert sum(isinstance(module, nn.BatchNorm2d) for module in folded.modules()) < sum(
            isinstance(module, nn.BatchNorm2d) for module in model.modules()
        )


def test_a_network_that_would_give_something_else_stays_as_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    model = network("timm/test_resnet")
    monkeypatch.setattr(folding, "fuse_conv_bn_eval", lambda convolution, norm: convolution)
    assert fold_batch_norms(model) is model
