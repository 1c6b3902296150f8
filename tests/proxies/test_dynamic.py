"""Dynamic assignment: nearest proxies, memory, dead proxies."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from tests.oracles import dynamic as oracles
from univert.core.errors import BadInputError
from univert.core.tensors import unit_rows
from univert.proxies import dynamic
from univert.proxies.bank import ProxyBank
from univert.proxies.dynamic import DynamicAssignment, forget_rows, nearest_proxies, start_from_points


def normal(rows: int, size: int = 5, seed: int = 0) -> torch.Tensor:
    return torch.randn(rows, size, generator=torch.Generator().manual_seed(seed))


@given(points=st.integers(0, 40), proxies=st.integers(1, 30), seed=st.integers(0, 99))
def test_nearest_equals_the_oracle(points: int, proxies: int, seed: int) -> None:
    x, p = normal(points, seed=seed), 3 * normal(proxies, seed=seed + 1)
    assert nearest_proxies(x, p).tolist() == oracles.nearest(oracles.unit(x), oracles.unit(p))


def test_nearest_does_not_depend_on_the_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    x, p = normal(50), normal(40, seed=1)
    whole = nearest_proxies(x, p)
    monkeypatch.setattr(dynamic, "_COLUMNS_AT_ONCE", 7)
    monkeypatch.setattr(dynamic, "_ROWS_AT_ONCE", 3)
    assert torch.equal(nearest_proxies(x, p), whole)
    ties = torch.eye(5).repeat(4, 1)
    assert nearest_proxies(torch.eye(5), ties).tolist() == [0, 1, 2, 3, 4]  # the first of equals


def test_memory_of_the_assignment() -> None:
    assignment = DynamicAssignment(points=5, proxies=3)
    assert assignment(torch.tensor([0, 4])).tolist() == [-1, -1]
    assignment.nearest[torch.tensor([4, 1])] = torch.tensor([2, 0])
    assert assignment.dead().tolist() == [1]
    x, p = normal(5), normal(3, seed=1)
    nearest = nearest_proxies(x, p)
    moved = int((nearest != assignment.nearest).sum())
    found = assignment.refresh(x, p)
    assert found == (moved, 3 - len(nearest.unique()))
    assert assignment.refresh(x, p).moved == 0
    fresh = DynamicAssignment(points=5, proxies=3)
    fresh.load_state_dict(assignment.state_dict())
    assert torch.equal(fresh.nearest, nearest)
    assert int(fresh.refreshes) == 2


def test_dead_proxies_take_points_from_crowded_ones() -> None:
    bank = ProxyBank(6, 5, seed=0)
    with torch.no_grad():
        bank.proxies[2:] = -bank.proxies[0] * torch.tensor([[1.0], [2.0], [3.0], [4.0]])
    x = bank.proxies.detach()[torch.arange(40) % 2] + 0.2 * normal(40)
    assignment = DynamicAssignment(40, 6)
    assert assignment.refresh(x, bank.proxies).dead == 4
    moved = assignment.reseed(bank, x, seed=0)
    assert moved.tolist() == [2, 3, 4, 5]
    torch.testing.assert_close(bank.proxies.detach().norm(dim=1)[2:], torch.tensor([1.0, 2.0, 3.0, 4.0]))
    assert len(assignment.dead()) == 0
    assert (unit_rows(bank.proxies.detach()) @ unit_rows(x).T).max(1).values.min() > 0.99
    assert assignment.refresh(x, bank.proxies).dead == 0


def test_reseeding_can_be_repeated_by_a_resumed_run() -> None:
    x = normal(30)
    results = []
    for stop in (False, True):
        bank, assignment = ProxyBank(50, 5, seed=0), DynamicAssignment(30, 50)
        for _ in range(3):
            assignment.refresh(x, bank.proxies)
            if stop:
                state, assignment = assignment.state_dict(), DynamicAssignment(30, 50)
                assignment.load_state_dict(state)
            assignment.reseed(bank, x, seed=7)
        results.append((bank.proxies.detach().clone(), assignment.nearest))
    for one, two in zip(*results, strict=True):
        assert torch.equal(one, two)


def test_start_from_points_finds_clusters_without_labels() -> None:
    centres = unit_rows(normal(8, 16, seed=3))
    x = centres.repeat_interleave(30, 0) + 0.05 * normal(240, 16, seed=4)
    bank = ProxyBank(8, 16, seed=0)
    start_from_points(bank, x, seed=0)
    torch.testing.assert_close(bank.proxies.detach().norm(dim=1), torch.ones(8))
    counts = nearest_proxies(x, bank.proxies).bincount(minlength=8)
    assert counts.min() > 0
    again = ProxyBank(8, 16, seed=1)
    start_from_points(again, x, seed=0)
    assert torch.equal(bank.proxies, again.proxies)
    few = ProxyBank(5, 16, seed=0)  # more than there are points
    start_from_points(few, x[:3], seed=0)
    assert few.proxies.isfinite().all()
    with pytest.raises(BadInputError, match="16 columns"):
        start_from_points(bank, x[:, :4])


@pytest.mark.parametrize("make", [torch.optim.Adam, lambda p: torch.optim.SGD(p, lr=0.1, momentum=0.9)])
def test_momentum_of_moved_rows_is_cleared(make: type[torch.optim.Adam]) -> None:
    bank = ProxyBank(4, 3, seed=0)
    optimiser = make(bank.parameters())
    forget_rows(optimiser, bank.proxies, torch.tensor([1]))  # nothing to forget yet
    bank().square().sum().backward()
    optimiser.step()
    forget_rows(optimiser, bank.proxies, torch.tensor([1, 3]))
    state = optimiser.state[bank.proxies]
    momentum = state.get("exp_avg", state.get("momentum_buffer"))
    assert (momentum.abs().sum(1) == 0).tolist() == [False, True, False, True]
    if "exp_avg_sq" in state:
        assert (state["exp_avg_sq"] > 0).all()


def test_bad_input_is_refused() -> None:
    assignment = DynamicAssignment(5, 3)
    bank = ProxyBank(3, 5)
    for points in (normal(3, 4), normal(3)[0], normal(3).long()):
        with pytest.raises(BadInputError, match="floating-point matrix"):
            nearest_proxies(points, normal(3)[:, :5] if points.ndim == 1 else normal(3))
    with pytest.raises(BadInputError, match="at least one row"):
        nearest_proxies(normal(3), normal(0))
    with pytest.raises(BadInputError, match="points >= 1"):
        DynamicAssignment(0, 3)
    for x, p in ((normal(4), normal(3)), (normal(5), normal(4))):
        with pytest.raises(BadInputError, match="5 points and 3 proxies"):
            assignment.refresh(x, p)
    with pytest.raises(BadInputError, match="5 points and 3 proxies"):
        assignment.reseed(bank, normal(4))
