"""Miners against loops over all triples, and at the edges."""

from collections import Counter
from collections.abc import Callable
from typing import Literal

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from tests.oracles import mining as oracle
from univert.core.errors import BadInputError
from univert.losses import miners as module
from univert.losses.miners import DistanceWeightedMiner, HardMiner, Miner, SemiHardMiner, Triplets

MINERS: dict[str, Callable[[], Miner]] = {
    "semi-hard": lambda: SemiHardMiner(0.5),
    "semi-hard-all": lambda: SemiHardMiner(0.5, negatives_per_pair=None),
    "hard": HardMiner,
    "distance-weighted": DistanceWeightedMiner,
}
every_miner = pytest.mark.parametrize("make", MINERS.values(), ids=MINERS.keys())


def batch(rows: int, size: int, products: int, seed: int) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    embeddings = nn.functional.normalize(torch.randn(rows, size, generator=generator), dim=1)
    return embeddings, torch.randint(products, (rows,), generator=generator)


def listed(triplets: Triplets) -> list[oracle.Triple]:
    return list(zip(*(index.tolist() for index in triplets), strict=True))


def found(triplets: Triplets) -> set[oracle.Triple]:
    rows = listed(triplets)
    assert len(rows) == len(set(rows)), "a triplet is listed twice"
    return set(rows)


batches = given(rows=st.integers(1, 16), size=st.integers(2, 8), products=st.integers(1, 6), seed=st.integers(0, 10**6))


@batches
@settings(max_examples=25, deadline=None)
@pytest.mark.parametrize("distance", ["squared", "plain"])
@pytest.mark.parametrize("per_pair", [1, 3, None])
def test_semi_hard_equals_the_loop_over_all_triples(
    per_pair: int | None, distance: Literal["squared", "plain"], rows: int, size: int, products: int, seed: int
) -> None:
    embeddings, labels = batch(rows, size, products, seed)
    miner = SemiHardMiner(0.3, negatives_per_pair=per_pair, distance=distance)
    expected = oracle.semi_hard(embeddings, labels, 0.3, per_pair, plain=distance == "plain")
    assert found(miner(embeddings, labels)) == expected


@batches
@settings(max_examples=25, deadline=None)
def test_hard_equals_the_loop_over_all_triples(rows: int, size: int, products: int, seed: int) -> None:
    embeddings, labels = batch(rows, size, products, seed)
    assert found(HardMiner()(embeddings, labels)) == oracle.hardest(embeddings, labels)


@batches
@settings(max_examples=25, deadline=None)
def test_distance_weighted_gives_each_pair_one_negative(rows: int, size: int, products: int, seed: int) -> None:
    embeddings, labels = batch(rows, size, products, seed)
    triplets = found(DistanceWeightedMiner()(embeddings, labels))
    every = set(oracle.triples(labels))
    assert triplets <= every
    pairs = Counter((a, p) for a, p, _ in triplets)
    assert pairs == Counter({(a, p) for a, p, _ in every})
    for a, _, n in triplets:
        in_reach = any(oracle.distance(embeddings, a, m) < 1.4**2 for b, _, m in every if b == a)
        assert not in_reach or oracle.distance(embeddings, a, n) < 1.4**2


@every_miner
def test_verticals_keep_negatives_at_home(make: Callable[[], Miner]) -> None:
    embeddings, labels = batch(30, 3, 6, 0)
    verticals = labels % 2
    triplets = found(make()(embeddings, labels, verticals=verticals))
    assert triplets
    assert triplets <= set(oracle.triples(labels, verticals))


@every_miner
def test_blocks_change_nothing(make: Callable[[], Miner], monkeypatch: pytest.MonkeyPatch) -> None:
    embeddings, labels = batch(30, 4, 5, 1)
    whole = found(make()(embeddings, labels))
    monkeypatch.setattr(module, "ANCHORS_AT_ONCE", 7)
    parts = found(make()(embeddings, labels))
    if isinstance(make(), DistanceWeightedMiner):  # the draws differ
        whole, parts = {(a, p, 0) for a, p, _ in whole}, {(a, p, 0) for a, p, _ in parts}
    assert parts == whole


@pytest.mark.parametrize("size", [2, 3, 16])
def test_draws_follow_the_analytic_weights(size: int) -> None:
    embeddings, labels = batch(12, size, 3, 4)
    cutoff, limit, copies = 0.3, 1.6, 60
    embeddings = torch.cat([embeddings, embeddings[:1].expand(copies, -1)])
    labels = torch.cat([labels, labels[:1].expand(copies)])
    expected = torch.tensor(oracle.draw_probabilities(embeddings, labels, 12, cutoff, limit))
    miner = DistanceWeightedMiner(cutoff, limit, generator=torch.Generator().manual_seed(5))
    anchors, _, negatives = miner(embeddings, labels)
    drawn = negatives[anchors >= 12]  # by copies of one anchor, for each other
    counts = torch.bincount(drawn, minlength=len(labels))
    assert len(drawn) >= copies * (copies - 1)
    assert (counts[expected == 0] == 0).all()
    # each count is binomial; 5 standard deviations
    deviation = (len(drawn) * expected * (1 - expected)).sqrt()
    assert ((counts - len(drawn) * expected).abs() <= 5 * deviation + 1e-6).all()


@pytest.mark.parametrize("size", [1, 2, 3, 1024])
@pytest.mark.parametrize("kind", ["random", "tight", "collapsed", "opposite", "zero", "orthogonal"])
def test_distance_weighted_is_robust(size: int, kind: str) -> None:
    rows = 8
    embeddings = {
        "random": torch.randn(rows, size, generator=torch.Generator().manual_seed(0)),
        "tight": 1 + 1e-3 * torch.randn(rows, size, generator=torch.Generator().manual_seed(0)),
        "collapsed": torch.ones(rows, size),
        "opposite": torch.ones(rows, size) * (1 - 2 * (torch.arange(rows) % 2))[:, None],
        "zero": torch.zeros(rows, size),
        "orthogonal": torch.eye(rows, size),
    }[kind]
    labels = torch.arange(rows) % 4
    for limit in (1.4, 2.0):
        miner = DistanceWeightedMiner(0.5, limit, generator=torch.Generator().manual_seed(0))
        triplets = found(miner(embeddings, labels))
        assert len(triplets) == rows  # one other image a product: each row is an anchor once
        assert triplets <= set(oracle.triples(labels))


@every_miner
@pytest.mark.parametrize(
    ("rows", "labels"),
    [(0, []), (1, [0]), (4, [0, 0, 0, 0]), (4, [0, 1, 2, 3])],
    ids=["empty", "one image", "one product", "no positives"],
)
def test_batches_without_triplets_give_none(make: Callable[[], Miner], rows: int, labels: list[int]) -> None:
    for part in make()(torch.randn(rows, 3), torch.tensor(labels, dtype=torch.long)):
        assert part.shape == (0,)
        assert part.dtype == torch.long


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: SemiHardMiner(0), "margin"),
        (lambda: SemiHardMiner(0.1, negatives_per_pair=0), "negatives_per_pair"),
        (lambda: SemiHardMiner(0.1, distance="cosine"), "distance"),  # type: ignore[arg-type]
        (lambda: DistanceWeightedMiner(0), "cutoff"),
        (lambda: DistanceWeightedMiner(1.5, 1.4), "cutoff"),
    ],
)
def test_settings_are_checked(make: Callable[[], object], message: str) -> None:
    with pytest.raises(BadInputError, match=message):
        make()
