"""The bounds hold on random data, equal their naive form, and the printed ones are seen to fail."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from tests.oracles import bounds as oracles
from univert.core.errors import BadInputError
from univert.proxies.approximation import Approximation, TripletDistances, Triplets, label_triplets
from univert.proxies.assignment import StaticAssignment
from univert.proxies.bounds import Bound, measure_bounds, monitor_points, nca_bound, ranking_bound, triplet_bound


def normal(rows: int, size: int, seed: int) -> Tensor:
    return torch.randn(rows, size, generator=torch.Generator().manual_seed(seed))


def holds(bound: Bound, tolerance: float = 1e-5) -> bool:
    """Whether every triplet keeps left <= actual <= right, up to rounding."""
    return bool(((bound.left <= bound.actual + tolerance) & (bound.actual <= bound.right + tolerance)).all())


def order_error(distances: TripletDistances, *, squared: bool) -> Bound:
    """Eq. 6: how much proxies change the difference of two distances; 2 sqrt(eps) if plain, 4 sqrt(eps) if squared."""
    (y, z), (own_y, own_z) = (distances.to_y, distances.to_z), (distances.to_own_y, distances.to_own_z)
    if not squared:
        y, z, own_y, own_z = y.sqrt(), z.sqrt(), own_y.sqrt(), own_z.sqrt()
    factor = 2 if squared else 1
    worst = 2 * distances.approximation.eps.sqrt().expand_as(y)
    return Bound(((y - z) - (own_y - own_z)).abs(), factor * worst, factor * distances.errors)


@st.composite
def situations(draw: st.DrawFn) -> tuple[Tensor, Tensor, Tensor, Tensor | None]:
    """Points, labels, proxies near or far, and an assignment: by product, at random, or to the nearest."""
    seed, size = draw(st.integers(0, 999)), draw(st.integers(1, 6))
    points = normal(draw(st.integers(3, 14)), size, seed)
    labels = torch.arange(len(points)) % draw(st.integers(2, 4))
    proxies = normal(4, size, seed + 1)
    nearness = draw(st.sampled_from([0.0, 1.0, 10.0]))
    proxies += nearness * points[:4].mean(0)
    assigned = draw(st.sampled_from([labels, (labels * 7 + torch.arange(len(labels))) % 4, None]))
    return points, labels, proxies, assigned


@given(situation=situations(), margin=st.floats(0, 2), norms=st.floats(0.05, 100))
def test_bounds_hold(situation: tuple[Tensor, Tensor, Tensor, Tensor | None], margin: float, norms: float) -> None:
    points, labels, proxies, assigned = situation
    triplets = label_triplets(labels)
    distances = TripletDistances(Approximation(points, proxies, assigned), triplets)
    assert holds(order_error(distances, squared=False), 1e-3)  # roots of what is nearly zero
    assert holds(order_error(distances, squared=True))
    assert holds(ranking_bound(distances))
    assert holds(triplet_bound(distances, margin=margin, norms=norms))
    negative = labels[:, None] != labels
    assert holds(nca_bound(distances, negative, norms=norms), 1e-4)


@pytest.mark.parametrize("lengths", [(1.0, 1.0), (3.0, 3.0), (2.0, 5.0), (0.5, 0.8)])
@pytest.mark.parametrize("seed", range(3))
def test_both_sides_equal_the_oracle_with_vectors_of_those_lengths(lengths: tuple[float, float], seed: int) -> None:
    points, proxies = normal(9, 4, seed), normal(3, 4, seed + 10)
    labels = torch.tensor([0, 0, 0, 1, 1, 2, 2, 2, 2])
    chosen = label_triplets(labels)
    a = Approximation(points, proxies, labels)
    distances = TripletDistances(a, chosen)
    norms = lengths[0] * lengths[1]
    found = (
        ranking_bound(distances),
        nca_bound(distances, labels[:, None] != labels, norms=norms),
        triplet_bound(distances, margin=0.3, norms=norms),
    )
    kept = 0
    for i, triplet in enumerate(zip(*(t.tolist() for t in chosen), strict=True)):
        wanted = oracles.sides(points, labels.tolist(), proxies, labels.tolist(), triplet, 0.3, lengths[0], lengths[1])
        assert a.eps.item() == pytest.approx(wanted.eps, rel=1e-5)
        for bound, (left, right) in zip(found, (wanted.ranking, wanted.nca, wanted.triplet), strict=True):
            assert bound.left[i].item() == pytest.approx(left, rel=1e-4, abs=1e-5)
            assert bound.right[i].item() == pytest.approx(right, rel=1e-4, abs=1e-5)
        kept += wanted.order_preserved
    assert distances.order_preserved().item() == pytest.approx(kept / len(chosen.x))


def worst_case() -> tuple[TripletDistances, float]:
    """x at right angles to all; y and z on either side of it, each proxy mirrored: every step is reached."""
    shift = 0.1
    up = math.sqrt(1 - shift**2)
    points = torch.tensor([[1.0, 0.0], [-shift, up], [shift, up]])
    proxies = torch.tensor([[1.0, 0.0], [shift, up], [-shift, up]])
    a = Approximation(points, proxies, torch.arange(3))
    return TripletDistances(a, Triplets(*torch.arange(3)[:, None])), a.eps.item()


def test_eq_6_as_printed_fails_for_squared_distances() -> None:
    distances, eps = worst_case()
    assert eps == pytest.approx(0.04)
    error = order_error(distances, squared=True)
    assert error.left.item() > 2 * eps  # 0.8 against 0.08
    assert error.left.item() == pytest.approx(4 * math.sqrt(eps), rel=1e-5)  # ours is reached


def test_printed_constants_of_the_bounds_are_too_small_for_squared_distances() -> None:
    distances, eps = worst_case()
    negative = torch.tensor([[False, False, True], [False] * 3, [False] * 3])
    nca = nca_bound(distances, negative)
    on_proxies = nca.right - 4 * math.sqrt(eps)
    assert nca.left.item() > (on_proxies + 2 * math.sqrt(2 * eps)).item()
    assert nca.left.item() == pytest.approx(nca.right.item(), abs=1e-5)
    # with d half the squared distance, 2 sqrt(2 eps) is right: losses and eps are half as large
    half = (on_proxies / 2 + 2 * math.sqrt(2 * eps / 2)).item()
    assert nca.left.item() / 2 == pytest.approx(half, abs=1e-5)
    hinge = triplet_bound(distances, margin=1.0)
    assert hinge.left.item() > (hinge.right - 2 * math.sqrt(eps)).item()  # 2 sqrt(eps) less: the printed one
    assert hinge.left.item() == pytest.approx(hinge.right.item(), abs=1e-5)


def test_printed_bounds_need_alpha_of_at_most_1() -> None:
    points = torch.tensor([[1.0, 0.0], [1.0, 0.0], [-1.0, 0.0]])
    a = Approximation(points, points[[0, 2]], torch.tensor([0, 0, 1]))
    distances = TripletDistances(a, Triplets(*torch.arange(3)[:, None]))
    alpha, margin = 2.0, 1.0
    hinge = triplet_bound(distances, margin=margin, norms=1 / alpha)
    printed = hinge.right + (1 - alpha) * margin
    assert printed.item() == pytest.approx(-1)
    assert hinge.left.item() == 0  # a loss is never below zero
    assert holds(hinge)


def test_perfect_proxies_leave_no_slack() -> None:
    points = normal(6, 4, 0)
    labels = torch.arange(6) % 2
    distances = TripletDistances(Approximation(points, points, torch.arange(6)), label_triplets(labels))
    for bound in (
        nca_bound(distances, labels[:, None] != labels),
        triplet_bound(distances, margin=0.2),
        order_error(distances, squared=True),
    ):
        torch.testing.assert_close(bound.left, bound.right)
    assert distances.order_preserved() == 1


@given(sizes=st.lists(st.integers(1, 4), min_size=0, max_size=5), seed=st.integers(0, 9))
def test_triplets_are_all_of_them_or_a_fair_sample(sizes: list[int], seed: int) -> None:
    labels = torch.arange(len(sizes)).repeat_interleave(torch.tensor(sizes, dtype=torch.long))
    labels = labels[torch.randperm(len(labels), generator=torch.Generator().manual_seed(seed))]
    wanted = set(oracles.all_triplets(labels.tolist()))
    found = list(zip(*(t.tolist() for t in label_triplets(labels)), strict=True))
    assert len(found) == len(wanted)
    assert set(found) == wanted
    if len(wanted) > 5:
        sample = label_triplets(labels, limit=5, seed=seed)
        assert len(sample.x) == 5
        assert set(zip(*(t.tolist() for t in sample), strict=True)) <= wanted


def test_sample_is_uniform_over_triplets() -> None:
    labels = torch.arange(3).repeat_interleave(torch.tensor([80, 120, 40]))
    share = [n * (n - 1) * (240 - n) for n in (80, 120, 40)]
    sample = label_triplets(labels, limit=20000, seed=0)
    for product in range(3):
        found = (labels[sample.x] == product).float().mean().item()
        assert found == pytest.approx(share[product] / sum(share), abs=0.01)


def test_nearest_of_several_own_proxies_stands_for_a_point() -> None:
    points, proxies = normal(5, 3, 0), normal(4, 3, 1)
    assignment = StaticAssignment.several(2, 2)
    labels = torch.tensor([0, 1, 0, 1, 1])
    a = Approximation(points, proxies, assignment(labels))
    for i, label in enumerate(labels.tolist()):
        own = oracles.unit(proxies)[2 * label : 2 * label + 2]
        wanted = (oracles.unit(points)[i] - own).square().sum(1).min()
        assert a.errors[i].item() == pytest.approx(wanted.item(), rel=1e-5)
    assert (Approximation(points, proxies).errors <= a.errors + 1e-6).all()


def test_measured_numbers_are_the_means_of_the_bounds() -> None:
    points, labels, proxies = normal(30, 5, 0), torch.arange(30) % 4, normal(4, 5, 1)
    found = measure_bounds(points, labels, proxies, labels, margin=0.3, scale=9.0, triplets=100, seed=2)
    a = Approximation(points, proxies, labels)
    distances = TripletDistances(a, label_triplets(labels, limit=100, seed=2))
    assert found["eps_max"] == pytest.approx(a.eps.item())
    assert found["eps_mean"] == pytest.approx(a.errors.mean().item())
    assert found["order_preserved"] == pytest.approx(distances.order_preserved().item())
    nca = nca_bound(distances, labels[:, None] != labels, norms=9.0)
    assert found["nca_loss"] == pytest.approx(nca.left.mean().item())
    assert found["nca_bound"] == pytest.approx(nca.right.mean().item())
    assert found["nca_tightness"] == pytest.approx(found["nca_bound"] - found["nca_loss"], rel=1e-5)
    hinge = triplet_bound(distances, margin=0.3, norms=9.0)
    assert found["triplet_tightness"] == pytest.approx((hinge.right - hinge.left).mean().item(), rel=1e-5)
    for name in ("ranking", "nca", "triplet"):
        assert 0 <= found[f"{name}_slack"] <= found[f"{name}_tightness"]
    assert found == measure_bounds(points, labels, proxies, labels, margin=0.3, triplets=100, seed=2)


@pytest.mark.parametrize("scale", [0.1, 9.0, 1e4])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
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


def test_training_makes_the_bounds_tighter() -> None:
    labels = torch.arange(40) % 4
    proxies = torch.eye(4)
    far, near = (proxies[labels] + spread * normal(40, 4, 0) for spread in (1.0, 0.1))
    before, after = (measure_bounds(x, labels, proxies, labels) for x in (far, near))
    for name in ("nca", "triplet"):
        for kind in ("tightness", "slack"):
            assert after[f"{name}_{kind}"] < before[f"{name}_{kind}"]
    assert after["order_preserved"] > before["order_preserved"]


def test_monitor_takes_whole_products_first() -> None:
    labels = torch.cat([torch.arange(20).repeat_interleave(10), torch.arange(20, 60), torch.full((9,), -1)])
    positions = monitor_points(labels, limit=100, per_product=8, seed=0)
    assert len(positions) == 100
    assert (positions.diff() > 0).all()
    counts = labels[positions].bincount()
    assert counts.max() == 8
    assert (counts[20:] == 0).all()
    assert torch.equal(positions, monitor_points(labels, limit=100, per_product=8, seed=0))
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
    distances = TripletDistances(Approximation(points, proxies, labels), label_triplets(labels))
    with pytest.raises(BadInputError, match="norms"):
        triplet_bound(distances, margin=0.1, norms=0)
    with pytest.raises(BadInputError, match="margin"):
        triplet_bound(distances, margin=-0.1)
    with pytest.raises(BadInputError, match="bool matrix"):
        nca_bound(distances, torch.ones(3, 3, dtype=torch.bool))
