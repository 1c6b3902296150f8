"""The bounds hold on random data, equal their naive form, and the printed ones are seen to fail."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from tests.oracles import bounds as oracles
from univert.core.errors import BadInputError
from univert.proxies.assignment import StaticAssignment
from univert.proxies.bounds import (
    Approximation,
    Triplets,
    label_triplets,
    measure_bounds,
    monitor_points,
    nca_bound,
    triplet_bound,
)


def normal(rows: int, size: int, seed: int) -> Tensor:
    return torch.randn(rows, size, generator=torch.Generator().manual_seed(seed))


def holds(sides: tuple[Tensor, Tensor], tolerance: float = 1e-4) -> bool:
    return bool((sides[0] <= sides[1] + tolerance).all())


def order_error(a: Approximation, triplets: Triplets, *, squared: bool) -> tuple[Tensor, Tensor]:
    """Eq. 6: how much proxies change the difference of two distances; 2 sqrt(eps) if plain, 4 sqrt(eps) if squared."""
    x, y, z = triplets
    power = 1 if squared else 0.5
    distances = [(a.points[x] - rows[other]).square().sum(1) ** power for rows in (a.points, a.own) for other in (y, z)]
    error = ((distances[0] - distances[1]) - (distances[2] - distances[3])).abs()
    return error, (4 if squared else 2) * a.eps.sqrt().expand_as(error)


@st.composite
def situations(draw: st.DrawFn) -> tuple[Tensor, Tensor, Tensor, Tensor | None]:
    """Points, labels, proxies near or far, and an assignment: by product, at random, or to the nearest."""
    seed, size = draw(st.integers(0, 999)), draw(st.integers(1, 6))
    points = normal(draw(st.integers(3, 14)), size, seed)
    labels = torch.arange(len(points)) % draw(st.integers(2, 4))
    proxies = normal(4, size, seed + 1) + draw(st.sampled_from([0.0, 1.0, 10.0])) * points[:4].mean(0)
    assigned = draw(st.sampled_from([labels, (labels * 7 + torch.arange(len(labels))) % 4, None]))
    return points, labels, proxies, assigned


@given(situation=situations(), margin=st.floats(0, 2), norms=st.floats(0.05, 100))
def test_bounds_hold(situation: tuple[Tensor, Tensor, Tensor, Tensor | None], margin: float, norms: float) -> None:
    points, labels, proxies, assigned = situation
    a, triplets = Approximation(points, proxies, assigned), label_triplets(labels)
    assert holds(order_error(a, triplets, squared=False), 1e-3)  # roots of what is nearly zero
    assert holds(order_error(a, triplets, squared=True))
    assert holds(triplet_bound(a, triplets, margin=margin, norms=norms))
    assert holds(nca_bound(a, triplets, labels[:, None] != labels, norms=norms))


@pytest.mark.parametrize("lengths", [(1.0, 1.0), (2.0, 5.0), (0.5, 0.8)])
def test_both_sides_equal_the_oracle_with_vectors_of_those_lengths(lengths: tuple[float, float]) -> None:
    points, proxies = normal(9, 4, 0), normal(3, 4, 10)
    labels = torch.tensor([0, 0, 0, 1, 1, 2, 2, 2, 2])
    chosen, a = label_triplets(labels), Approximation(points, proxies, labels)
    norms = lengths[0] * lengths[1]
    by_nca = nca_bound(a, chosen, labels[:, None] != labels, norms=norms)
    by_triplets = triplet_bound(a, chosen, margin=0.3, norms=norms)
    kept = 0
    for i, triplet in enumerate(zip(*(t.tolist() for t in chosen), strict=True)):
        wanted = oracles.sides(points, labels.tolist(), proxies, labels.tolist(), triplet, 0.3, *lengths)
        assert a.eps.item() == pytest.approx(wanted.eps, rel=1e-5)
        assert [side[i].item() for side in by_nca] == pytest.approx(wanted.nca, rel=1e-4, abs=1e-5)
        assert [side[i].item() for side in by_triplets] == pytest.approx(wanted.triplet, rel=1e-4, abs=1e-5)
        kept += wanted.order_preserved
    assert a.order_preserved(chosen).item() == pytest.approx(kept / len(chosen[0]))


ONE_TRIPLET = (torch.tensor([0]), torch.tensor([1]), torch.tensor([2]))


def worst_case() -> tuple[Approximation, float]:
    """x at right angles to all; y and z on either side of it, each proxy mirrored: every step is reached."""
    shift = 0.1
    up = math.sqrt(1 - shift**2)
    points = torch.tensor([[1.0, 0.0], [-shift, up], [shift, up]])
    proxies = torch.tensor([[1.0, 0.0], [shift, up], [-shift, up]])
    a = Approximation(points, proxies, torch.arange(3))
    return a, a.eps.item()


def test_eq_6_as_printed_fails_for_squared_distances() -> None:
    a, eps = worst_case()
    assert eps == pytest.approx(0.04)
    error, _ = order_error(a, ONE_TRIPLET, squared=True)
    assert error.item() > 2 * eps  # 0.8 against 0.08
    assert error.item() == pytest.approx(4 * math.sqrt(eps), rel=1e-5)  # ours is reached


def test_printed_constants_of_the_bounds_are_too_small_for_squared_distances() -> None:
    a, eps = worst_case()
    loss, bound = nca_bound(a, ONE_TRIPLET, torch.tensor([[False, False, True], [False] * 3, [False] * 3]))
    on_proxies = bound.item() - 4 * math.sqrt(eps)
    assert loss.item() > on_proxies + 2 * math.sqrt(2 * eps)
    assert loss.item() == pytest.approx(bound.item(), abs=1e-5)
    # with d half the squared distance, 2 sqrt(2 eps) is right: losses and eps are half as large
    assert loss.item() / 2 == pytest.approx(on_proxies / 2 + 2 * math.sqrt(2 * eps / 2), abs=1e-5)
    loss, bound = triplet_bound(a, ONE_TRIPLET, margin=1.0)
    assert loss.item() > bound.item() - 2 * math.sqrt(eps)  # 2 sqrt(eps) less: the printed one
    assert loss.item() == pytest.approx(bound.item(), abs=1e-5)


def test_printed_bounds_need_alpha_of_at_most_1() -> None:
    points = torch.tensor([[1.0, 0.0], [1.0, 0.0], [-1.0, 0.0]])
    a = Approximation(points, points[[0, 2]], torch.tensor([0, 0, 1]))
    alpha, margin = 2.0, 1.0
    loss, bound = triplet_bound(a, ONE_TRIPLET, margin=margin, norms=1 / alpha)
    assert (bound + (1 - alpha) * margin).item() == pytest.approx(-1)  # as printed
    assert 0 == loss.item() <= bound.item()  # a loss is never below zero


@given(sizes=st.lists(st.integers(1, 4), min_size=0, max_size=5), seed=st.integers(0, 9))
def test_triplets_are_all_of_them_or_a_fair_sample(sizes: list[int], seed: int) -> None:
    labels = torch.arange(len(sizes)).repeat_interleave(torch.tensor(sizes, dtype=torch.long))
    labels = labels[torch.randperm(len(labels), generator=torch.Generator().manual_seed(seed))]
    wanted = oracles.all_triplets(labels.tolist())
    assert sorted(zip(*(t.tolist() for t in label_triplets(labels)), strict=True)) == wanted
    if len(wanted) > 5:
        sample = list(zip(*(t.tolist() for t in label_triplets(labels, limit=5, seed=seed)), strict=True))
        assert len(sample) == 5
        assert set(sample) <= set(wanted)


def test_sample_is_uniform_over_triplets() -> None:
    labels = torch.arange(3).repeat_interleave(torch.tensor([80, 120, 40]))
    share = [n * (n - 1) * (240 - n) for n in (80, 120, 40)]
    anchors = labels[label_triplets(labels, limit=20000, seed=0)[0]]
    for product in range(3):
        assert (anchors == product).float().mean().item() == pytest.approx(share[product] / sum(share), abs=0.01)


def test_nearest_of_several_own_proxies_stands_for_a_point() -> None:
    points, proxies = normal(5, 3, 0), normal(4, 3, 1)
    labels = torch.tensor([0, 1, 0, 1, 1])
    a = Approximation(points, proxies, StaticAssignment.several(2, 2)(labels))
    for i, label in enumerate(labels.tolist()):
        own = oracles.unit(proxies)[2 * label : 2 * label + 2]
        wanted = (oracles.unit(points)[i] - own).square().sum(1).min()
        assert a.errors[i].item() == pytest.approx(wanted.item(), rel=1e-5)
    assert (Approximation(points, proxies).errors <= a.errors + 1e-6).all()


def test_measured_numbers_are_the_means_of_the_bounds() -> None:
    points, labels, proxies = normal(30, 5, 0), torch.arange(30) % 4, normal(4, 5, 1)
    found = measure_bounds(points, labels, proxies, labels, margin=0.3, scale=9.0, triplets=100, seed=2)
    a, chosen = Approximation(points, proxies, labels), label_triplets(labels, limit=100, seed=2)
    nca_loss, nca = nca_bound(a, chosen, labels[:, None] != labels, norms=9.0)
    hinge_loss, hinge = triplet_bound(a, chosen, margin=0.3, norms=9.0)
    assert found == pytest.approx(
        {
            "eps_max": a.eps.item(),
            "eps_mean": a.errors.mean().item(),
            "order_preserved": a.order_preserved(chosen).item(),
            "nca_tightness": (nca - nca_loss).mean().item(),
            "triplet_tightness": (hinge - hinge_loss).mean().item(),
        }
    )


@pytest.mark.parametrize("scale", [0.1, 9.0, 1e4])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
def test_measuring_stays_finite(scale: float, dtype: torch.dtype) -> None:
    labels = torch.arange(8) % 3
    for points in (torch.ones(8, 4), torch.zeros(8, 4), 1e3 * normal(8, 4, 0)):
        found = measure_bounds(points.to(dtype), labels, normal(3, 4, 1), labels, scale=scale)
        assert all(math.isfinite(value) for value in found.values())


@pytest.mark.parametrize("labels", [[], [1], [1, 1, 1], [0, 1, 2]])
def test_without_triplets_only_eps_is_measured(labels: list[int]) -> None:
    points = normal(len(labels), 4, 0)
    found = measure_bounds(points, torch.tensor(labels, dtype=torch.long), normal(3, 4, 1), None)
    assert set(found) == {"eps_max", "eps_mean"}


def test_monitor_takes_whole_products_first() -> None:
    labels = torch.cat([torch.arange(20).repeat_interleave(10), torch.arange(20, 60), torch.full((9,), -1)])
    positions = monitor_points(labels, limit=100, per_product=8, seed=0)
    assert len(positions) == 100
    assert (positions.diff() > 0).all()
    counts = labels[positions].bincount()
    assert counts.max() == 8
    assert (counts[20:] == 0).all()
    assert not torch.equal(positions, monitor_points(labels, limit=100, per_product=8, seed=1))
    assert len(monitor_points(labels, limit=1000, per_product=8)) == 160 + 40
    assert len(monitor_points(torch.empty(0, dtype=torch.long))) == 0


def test_bad_input_is_refused() -> None:
    points, labels, proxies = normal(4, 3, 0), torch.tensor([0, 0, 1, 1]), normal(2, 3, 1)
    for assigned in (labels + 1, labels - 1, labels[:3], labels.float(), labels[:, None, None]):
        with pytest.raises(BadInputError, match="assigned"):
            Approximation(points, proxies, assigned)
    with pytest.raises(BadInputError, match="labels"):
        measure_bounds(points, labels[:3], proxies, labels)
