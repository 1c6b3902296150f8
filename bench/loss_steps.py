"""The contenders of bench/losses.py: one training step each, on the same inputs."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from univert.losses.proxy_nca_loss import ProxyNCALoss
from univert.losses.triplet_margin_loss import triplet_margin_loss

Step = Callable[[], Tensor | None]
OURS, PEER, PLAIN, BARE, BARE_CHUNKS = (
    "Univert",
    "pytorch-metric-learning",
    "plain cross-entropy",
    "three bare products, whole",
    "three bare products, in chunks",
)
SENTENCES = "sentence-transformers"
SCALE, MARGIN, CHUNK_ROWS = 9.0, 0.2, 128
NCA_CASES = {"small": (128, 11_318, 64), "large": (512, 100_000, 64)}
TRIPLET_CASES = {"triplet-4": (1024, 128, 4), "triplet-32": (1024, 128, 32)}


def peer(part: str) -> Any:
    """A module of pytorch-metric-learning, which weighs on memory once imported."""
    return importlib.import_module(f"pytorch_metric_learning.{part}")


def backward_of(leaves: list[Tensor], loss: Callable[[], Tensor]) -> Step:
    """One training step of a loss, gradients from nothing."""

    def step() -> Tensor:
        for leaf in leaves:
            leaf.grad = None
        value = loss()
        value.backward()
        return value.detach()

    return step


def nca_step(name: str, rows: int, count: int, size: int, device: str) -> Step:
    """A contender of the Proxy-NCA cases; its inputs are made here, its working memory in the step."""
    generator = torch.Generator().manual_seed(0)
    x = nn.functional.normalize(torch.randn(rows, size, generator=generator)).to(device).requires_grad_()
    labels = torch.randint(count, (rows,), generator=generator).to(device)
    proxies = torch.randn(count, size, generator=generator).to(device).requires_grad_()
    if name in (BARE, BARE_CHUNKS):
        return bare_step(x.detach(), proxies.detach(), CHUNK_ROWS if name == BARE_CHUNKS else rows)
    if name == PLAIN:
        unit = nn.functional.normalize
        return backward_of(
            [x, proxies], lambda: nn.functional.cross_entropy(2 * SCALE * unit(x) @ unit(proxies).T, labels)
        )
    loss: Any
    if name == OURS:
        loss = ProxyNCALoss(count, 1, SCALE)
        loss.bank.proxies = nn.Parameter(proxies.detach())
    else:
        loss = peer("losses").ProxyNCALoss(count, 1, softmax_scale=SCALE)
        loss.proxies = nn.Parameter(proxies.detach())
    loss.to(device)
    return backward_of([x, *loss.parameters()], lambda: loss(x, labels))


def bare_step(x: Tensor, proxies: Tensor, chunk_rows: int) -> Step:
    buffers: list[Tensor] = []

    def step() -> None:
        if not buffers:
            buffers.extend((x.new_empty(chunk_rows, len(proxies)), torch.empty_like(x), torch.empty_like(proxies)))
        logits, by_x, by_proxies = buffers
        for start in range(0, len(x), chunk_rows):
            part = slice(start, start + chunk_rows)
            torch.mm(x[part], proxies.T, out=logits)
            torch.mm(logits, proxies, out=by_x[part])
            by_proxies.addmm_(logits.T, x[part], beta=1 if start else 0)

    return step


def triplet_step(name: str, rows: int, size: int, images: int, device: str) -> Step:
    """A contender of the triplet cases: P x K batches of clusters that overlap."""
    generator = torch.Generator().manual_seed(0)
    labels = torch.arange(rows // images).repeat_interleave(images)
    centres = torch.randn(rows // images, size, generator=generator)[labels]
    x = nn.functional.normalize(centres + 1.2 * torch.randn(rows, size, generator=generator)).to(device)
    x, labels = x.requires_grad_(), labels.to(device)
    if name == OURS:
        return backward_of([x], lambda: triplet_margin_loss(x, labels, margin=MARGIN))
    loss: Any
    if name == SENTENCES:
        losses = importlib.import_module("sentence_transformers.losses")
        loss = losses.BatchSemiHardTripletLoss(nn.Identity(), margin=MARGIN)
        return backward_of([x], lambda: loss.batch_semi_hard_triplet_loss(labels, x))
    squared = peer("distances").LpDistance(power=2)
    miner = peer("miners").TripletMarginMiner(MARGIN, type_of_triplets="semihard", distance=squared)
    loss = peer("losses").TripletMarginLoss(MARGIN, distance=squared)
    return backward_of([x], lambda: loss(x, labels, miner(x, labels)))


def contenders(case: str) -> list[str]:
    if case in NCA_CASES:
        return [OURS, PEER, PLAIN, BARE, BARE_CHUNKS]
    try:
        importlib.import_module("sentence_transformers")
    except ImportError:
        return [OURS, PEER]
    return [OURS, PEER, SENTENCES]


def make_step(case: str, name: str, device: str, *, tiny: bool = False) -> Step:
    if case in NCA_CASES:
        return nca_step(name, *((CHUNK_ROWS, 256, 8) if tiny else NCA_CASES[case]), device)
    return triplet_step(name, *((16, 8, 4) if tiny else TRIPLET_CASES[case]), device)
