import inspect

import pytest
import torch
from torch.nn.functional import normalize

import univert.losses
from univert.core.errors import BadInputError
from univert.losses.names import LOSSES, LossName, make_loss
from univert.training.label_config import LabelLoopConfig, SpecialistsConfig


@pytest.mark.parametrize("name", LOSSES)
@pytest.mark.parametrize("ratio", [0.5, 1.0, 2.0])
def test_every_loss_can_be_asked_for_by_name(name: LossName, ratio: float) -> None:
    loss = make_loss(name, {}, products=8, size=6, proxies_per_product=ratio, seed=0)
    generator = torch.Generator().manual_seed(0)
    embeddings = normalize(torch.randn(16, 6, generator=generator), dim=1).requires_grad_()
    value = loss(embeddings, torch.arange(16) % 8)
    value.backward()
    assert value.isfinite()
    assert embeddings.grad is not None
    if LOSSES[name].proxies in ("assigned", "dynamic"):
        assert loss.bank.count == 8 * ratio  # type: ignore[union-attr]


def test_every_product_loss_of_the_package_has_a_name() -> None:
    named = {entry.class_name for entry in LOSSES.values()}
    exported = {name for name in univert.losses.__all__ if name.endswith("Loss")}
    assert exported - named == {"MinedLoss", "TargetL2Loss"}


@pytest.mark.parametrize("name", LOSSES)
def test_the_table_of_options_is_that_of_the_constructor(name: LossName) -> None:
    parameters = inspect.signature(getattr(univert.losses, LOSSES[name].class_name)).parameters
    not_in_recipes = {"num_classes", "num_proxies", "embedding_size", "assignment", "seed", "swap", "smooth_loss"}
    types = {
        option: int if parameter.default is None else type(parameter.default)
        for option, parameter in parameters.items()
        if option not in not_in_recipes and parameter.kind is not parameter.VAR_KEYWORD
    }
    assert LOSSES[name].options == types


def test_unknown_losses_and_options_are_named() -> None:
    with pytest.raises(BadInputError, match="did you mean 'proxy-nca'"):
        make_loss("proxi-nca", {}, products=4, size=4)  # type: ignore[arg-type]
    with pytest.raises(BadInputError, match=r"no option 'scale'.*softmax_scale"):
        make_loss("proxy-nca", {"scale": 3.0}, products=4, size=4)
    with pytest.raises(BadInputError, match="no option 'seed'"):
        make_loss("proxy-nca", {"seed": 3}, products=4, size=4)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"loss": "triplet", "proxies_per_product": 0.5}, "proxies_per_product has no effect"),
        ({"loss": "triplet", "proxy_start": "random"}, "proxy_start has no effect"),
        ({"loss": "proxy-nca", "proxy_start": "random-assignment"}, "is for dynamic-proxy-nca"),
        ({"loss": "soft-triple", "proxies_per_product": 2.0}, "proxies_per_product has no effect"),
        ({"loss": "proxy-nca", "miner": "hard"}, "miner has no effect"),
        ({"loss": "proxy-nca", "reseed_every_steps": 5}, "reseed_every_steps has no effect"),
        ({"loss": "triplet", "loss_options": {"margins": 0.5}}, "did you mean 'margin'"),
        ({"loss": "proxy-nca", "loss_options": {"softmax_scale": "9"}}, "must be a number"),
        ({"loss": "proxy-nca", "loss_options": {"sparse": 1}}, "must be true or false"),
        ({"loop": LabelLoopConfig(images_per_product=1)}, "images_per_product must be at least 2 for 'triplet'"),
        ({"loop": LabelLoopConfig(batch_size=6, images_per_product=4)}, "batch_size must be at least twice"),
    ],
)
def test_settings_without_effect_or_sense_are_refused(settings: dict[str, object], message: str) -> None:
    with pytest.raises(BadInputError, match=message):
        SpecialistsConfig(**settings)  # type: ignore[arg-type]
