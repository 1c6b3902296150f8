"""Pooling and head against naive formulas."""

import pytest
import torch

from univert.core.errors import BadInputError
from univert.models.head import GeMPooling, Head, make_pooling


def test_poolings_equal_their_formulas() -> None:
    maps = torch.rand(3, 5, 4, 2) + 0.1
    assert torch.allclose(make_pooling("avg")(maps), maps.sum((2, 3)) / 8)
    assert torch.equal(make_pooling("max")(maps), maps.flatten(2).max(-1).values)
    assert torch.allclose(GeMPooling(3.0)(maps), ((maps**3).sum((2, 3)) / 8) ** (1 / 3))
    assert torch.allclose(GeMPooling(1.0)(maps), maps.mean((2, 3)))
    with pytest.raises(BadInputError, match="pooling must be one of avg, max, gem"):
        make_pooling("median")


@pytest.mark.parametrize("scale", [0.0, 1e-4, 1.0, 1e4, 1e30])
def test_gem_survives_extreme_maps(scale: float) -> None:
    pooling = GeMPooling()
    maps = (torch.rand(2, 3, 4, 4) * scale).requires_grad_()
    pooled = pooling(maps)
    (pooled / max(scale, 1.0)).sum().backward()
    assert torch.isfinite(pooled).all()
    assert torch.isfinite(maps.grad).all()
    assert torch.isfinite(pooling.power.grad)


def test_gem_gradients_equal_those_of_the_plain_formula() -> None:
    pooling, maps = GeMPooling(2.5), torch.rand(2, 3, 2, 2) + 0.2
    ours = maps.clone().requires_grad_()
    pooling(ours).square().sum().backward()
    plain, power = maps.double().requires_grad_(), torch.tensor(2.5, dtype=torch.float64, requires_grad=True)
    plain.pow(power).mean((2, 3)).pow(1 / power).square().sum().backward()
    for mine, expected in ((ours.grad, plain.grad), (pooling.power.grad, power.grad)):
        assert expected is not None
        assert torch.allclose(mine.double(), expected, rtol=1e-4, atol=1e-6)


def test_head_is_its_two_sets() -> None:
    head = Head(6, (5, 4), 3, batch_norm=False).eval()
    features = torch.randn(7, 6)
    expected = features
    for linear, norm in ((head.first[0], head.first[1]), (head.first[3], head.first[4])):
        hidden = expected @ linear.weight.T  # type: ignore[operator, union-attr]
        scale = norm.weight / (norm.running_var + norm.eps).sqrt()  # type: ignore[operator, union-attr]
        expected = ((hidden - norm.running_mean) * scale + norm.bias).clamp_min(0)  # type: ignore[operator]
    expected = expected @ head.second.weight.T + head.second.bias
    assert torch.allclose(head(features), expected, atol=1e-6)


def test_one_image_alone_cannot_train_batch_norm() -> None:
    head = Head(6, (5,), 3, batch_norm=False)
    with pytest.raises(BadInputError, match="at least 2 images, got 1"):
        head(torch.randn(1, 6))
    assert head.eval()(torch.randn(1, 6)).shape == (1, 3)
    assert Head(6, (), 3, batch_norm=False)(torch.randn(1, 6)).shape == (1, 3)


@pytest.mark.parametrize("batch_norm", [False, True])
@pytest.mark.parametrize(("hidden", "directions"), [((), 6), ((), 2), ((9,), 6), ((6,), 6), ((6,), 2)])
def test_head_starts_as_a_projection(hidden: tuple[int, ...], directions: int, batch_norm: bool) -> None:
    features, basis = torch.randn(50, 6), torch.linalg.qr(torch.randn(6, 6))[0][:, :directions]
    head = Head(6, hidden, 3, batch_norm=batch_norm)
    head.start_along(basis, features)
    assert head.training
    expected = torch.zeros(50, 3)
    expected[:, :directions] = (features @ basis)[:, :3]
    assert torch.allclose(head.eval()(features), expected, atol=1e-4)


@pytest.mark.parametrize("hidden", [(5,), (8, 8)])
def test_head_that_cannot_be_a_projection_stays_as_it_is(hidden: tuple[int, ...]) -> None:
    head = Head(6, hidden, 3, batch_norm=False)
    before = [parameter.clone() for parameter in head.parameters()]
    head.start_along(torch.eye(6), torch.randn(50, 6))
    assert all(map(torch.equal, before, head.parameters()))
