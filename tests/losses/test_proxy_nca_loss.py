from __future__ import annotations

import itertools
import math
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import pytest
import pytorch_metric_learning.losses as peer
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from tests.losses.cases_kernels import SEVERAL, own
from tests.losses.watch import LargestTensor, assert_same_gradients, gradients
from tests.oracles import kernels as oracles
from univert.core.errors import BadInputError
from univert.losses import proxy_softmax
from univert.losses.normalized_softmax_loss import NormalizedSoftmaxLoss, normalized_softmax_loss
from univert.losses.proxy_nca_loss import ProxyNCALoss, proxy_nca_loss
from univert.losses.proxy_softmax import proxy_softmax_sum
from univert.losses.sampled_proxies import sample_proxies
from univert.losses.softmax_loss import SoftmaxLoss, softmax_loss
from univert.proxies.assignment import StaticAssignment

FORMS = pytest.mark.parametrize("form", ["softmax", "paper"])


def drawn(rows: int, proxies: int, size: int, seed: int = 0) -> tuple[Tensor, Tensor, Tensor]:
    """Embeddings, proxies and labels."""
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(rows, size, generator=generator)
    return (
        x,
        torch.randn(proxies, size, generator=generator) * 2,
        torch.randint(proxies, (rows,), generator=generator),
    )


def closely(found: Tensor, wanted: Tensor, tolerance: float = 1e-5) -> None:
    torch.testing.assert_close(found.double(), wanted.double(), rtol=tolerance, atol=tolerance)


OPTIONS = [
    {"form": form, "pooling": pooling, "label_smoothing": smoothing, "unit_norm": unit_norm}
    for form, pooling, smoothing, unit_norm in itertools.product(
        ("softmax", "paper"), ("soft", "nearest"), (0.0, 0.1), (True, False)
    )
]


@pytest.mark.parametrize("options", OPTIONS, ids=lambda o: "-".join(str(value) for value in o.values()))
@pytest.mark.parametrize("device", ["cpu", pytest.param("cuda", marks=pytest.mark.gpu)])
def test_value_and_gradients_equal_the_oracle(options: dict[str, Any], device: str) -> None:
    x, proxies, labels = drawn(7, 7, 5)
    scale = 9.0 if options["unit_norm"] else 0.3
    expected = {"smoothing" if name == "label_smoothing" else name: value for name, value in options.items()}
    for table, chunk_rows in itertools.product(
        (torch.arange(7)[:, None], torch.cat([SEVERAL, SEVERAL[:3]])), (None, 1, 3)
    ):

        def loss(x: Tensor, p: Tensor, table: Tensor = table, chunk_rows: int | None = chunk_rows) -> Tensor:
            assigned = table[labels].to(device)
            value = proxy_nca_loss(x.to(device), p.to(device), assigned, scale=scale, chunk_rows=chunk_rows, **options)
            return value.cpu()

        def oracle(x: Tensor, p: Tensor, table: Tensor = table) -> Tensor:
            return oracles.proxy_nca(x, p, own(table, labels), scale, **expected)

        closely(loss(x, proxies), oracle(x, proxies))
        assert_same_gradients(loss, oracle, x, proxies)


@pytest.mark.parametrize("pooling", ["soft", "nearest"])
@pytest.mark.parametrize("exclude_own", [True, False])
def test_proxies_too_large_to_copy_give_the_same(
    pooling: Any, exclude_own: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    x, proxies, labels = drawn(7, 9, 5)
    own_BM = torch.stack([labels, (labels + 3) % 9], 1)

    def loss(x: Tensor, p: Tensor, bias: Tensor) -> Tensor:
        options: Any = {"exclude_own": exclude_own, "pooling": pooling, "label_smoothing": 0.1}
        return proxy_softmax_sum(x, p, own_BM, bias=bias, chunk_rows=3, **options)

    inputs = (x, proxies, torch.linspace(-1, 1, 9))
    whole, grads = loss(*inputs), gradients(loss, *inputs)
    monkeypatch.setattr(proxy_softmax, "_COPY_BYTES", 0)
    closely(loss(*inputs), whole)
    for found, wanted in zip(gradients(loss, *inputs), grads, strict=True):
        torch.testing.assert_close(found, wanted)


@given(
    rows=st.integers(0, 9),
    proxies=st.integers(2, 9),
    chunk_rows=st.integers(1, 10),
    scale=st.floats(0.1, 30),
    form=st.sampled_from(["softmax", "paper"]),
    seed=st.integers(0, 99),
)
@settings(max_examples=40, deadline=None)
def test_any_sizes_and_chunks(rows: int, proxies: int, chunk_rows: int, scale: float, form: str, seed: int) -> None:
    x, p, labels = drawn(rows, proxies, 3, seed)
    mine = labels[:, None].tolist()
    options: Any = {"scale": scale, "form": form}
    closely(
        proxy_nca_loss(x, p, labels, chunk_rows=chunk_rows, **options), oracles.proxy_nca(x, p, mine, **options), 1e-4
    )
    assert_same_gradients(
        lambda x, p: proxy_nca_loss(x, p, labels, chunk_rows=chunk_rows, **options),
        lambda x, p: oracles.proxy_nca(x, p, mine, **options),
        x,
        p,
        tolerance=1e-3,
    )


def test_large_scale_equals_the_oracle() -> None:
    x, proxies, labels = drawn(6, 8, 5)
    for scale in (100.0, 1e3, 1e4):
        closely(
            proxy_nca_loss(x, proxies, labels, scale=scale),
            oracles.proxy_nca(x, proxies, labels[:, None].tolist(), scale),
        )


def hard_points() -> dict[str, tuple[Tensor, Tensor]]:
    """Embeddings and proxies; image i belongs to proxy i."""
    x, p, _ = drawn(6, 6, 4)
    return {
        "wrong proxy": (p.roll(1, 0), p),
        "right proxy": (p, p),
        "opposite": (-p, p),
        "one point": (torch.ones(6, 4), torch.ones(6, 4)),
        "zero": (torch.zeros(6, 4), torch.zeros(6, 4)),
        "zero proxies": (x, torch.zeros(6, 4)),
        "long": (1e4 * x, p),
    }


@FORMS
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
@pytest.mark.parametrize("scale", [1.0, 100.0, 1e4])
def test_extremes_are_finite_and_right(form: Any, dtype: torch.dtype, scale: float) -> None:
    for name, (x, p) in hard_points().items():
        x, p = x.to(dtype).requires_grad_(), p.to(dtype).requires_grad_()
        mine = torch.arange(6)
        value = proxy_nca_loss(x, p, mine, scale=scale, form=form)
        grads = torch.autograd.grad(value, (x, p))
        assert value.dtype == torch.float32
        assert value.isfinite(), name
        assert all(grad.dtype == dtype for grad in grads)
        if scale < 1e4 or dtype == torch.float32:  # else a slope may exceed what the half can hold
            assert all(grad.isfinite().all() for grad in grads), name
        if "zero" not in name:  # the oracle's d to a zero proxy is 1, ours that of an orthogonal one
            wanted = oracles.proxy_nca(x.detach(), p.detach(), mine[:, None].tolist(), scale, form)
            closely(value / scale, wanted / scale)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_autocast_changes_nothing(dtype: torch.dtype) -> None:
    x, proxies, labels = drawn(6, 8, 5)
    loss = ProxyNCALoss(8, 5, 100.0, seed=0)
    loss.bank.proxies.data = proxies
    plain = loss(x, labels)
    with torch.autocast("cpu", dtype):
        assert torch.equal(loss(x, labels), plain)
        softly = softmax_loss(x, proxies, labels, bias=proxies[:, 0])
        free = proxy_nca_loss(x, proxies, labels, unit_norm=False)
    assert torch.equal(softly, softmax_loss(x, proxies, labels, bias=proxies[:, 0]))
    assert torch.equal(free, proxy_nca_loss(x, proxies, labels, unit_norm=False))


@pytest.mark.parametrize("scale", [1.0, 9.0])
def test_equals_pytorch_metric_learning(scale: float) -> None:
    x, proxies, labels = drawn(12, 8, 5)
    theirs, ours = peer.ProxyNCALoss(8, 5, softmax_scale=scale), ProxyNCALoss(8, 5, scale)
    assert {name for name, _ in ours.named_parameters()} == {"bank.proxies"}
    theirs.proxies.data = ours.bank.proxies.data = proxies
    closely(ours(x, labels), theirs(x, labels))
    assert_same_gradients(lambda x: ours(x, labels), lambda x: theirs(x, labels), x)
    ours(x, labels).backward()
    theirs(x, labels).backward()
    torch.testing.assert_close(ours.bank.proxies.grad, theirs.proxies.grad, rtol=1e-4, atol=1e-6)


def test_normalized_softmax_equals_pytorch_metric_learning_and_proxy_nca() -> None:
    x, proxies, labels = drawn(12, 8, 5)
    theirs, ours = peer.NormalizedSoftmaxLoss(8, 5), NormalizedSoftmaxLoss(8, 5)
    theirs.W.data, ours.bank.proxies.data = proxies.T.clone(), proxies
    closely(ours(x, labels), theirs(x, labels))
    closely(ours(x, labels), proxy_nca_loss(x, proxies, labels, scale=10.0))
    assert_same_gradients(lambda x: ours(x, labels), lambda x: theirs(x, labels), x)


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_softmax_equals_cross_entropy_of_a_linear_layer(smoothing: float) -> None:
    x, weights, labels = drawn(12, 8, 5)
    bias = weights[:, 1].clone()

    def linear(x: Tensor, w: Tensor, b: Tensor) -> Tensor:
        return nn.functional.cross_entropy(nn.functional.linear(x, w, b), labels, label_smoothing=smoothing)

    def ours(x: Tensor, w: Tensor, b: Tensor) -> Tensor:
        return softmax_loss(x, w, labels, bias=b, label_smoothing=smoothing, chunk_rows=5)

    closely(ours(x, weights, bias), linear(x, weights, bias))
    assert_same_gradients(ours, linear, x, weights, bias)
    module = SoftmaxLoss(8, 5, label_smoothing=smoothing, seed=0)
    assert {name for name, _ in module.named_parameters()} == {"bank.proxies", "bias"}
    module(x, labels).backward()
    assert all(parameter.grad is not None for parameter in module.parameters())


def test_several_equal_proxies_are_as_one() -> None:
    """Pooled softly, M copies add log M to both sums; the nearest of them is any of them."""
    x, proxies, labels = drawn(9, 5, 4)
    table = torch.arange(15).view(3, 5).T
    several = proxies.repeat(3, 1)
    one = proxy_nca_loss(x, proxies, labels)
    closely(proxy_nca_loss(x, several, table[labels]), one)
    closely(proxy_nca_loss(x, several, table[labels], pooling="nearest"), one + math.log(3))


def test_module_uses_its_assignment() -> None:
    x, _, labels = drawn(9, 4, 5)
    assignment = StaticAssignment(SEVERAL, count=7)
    loss = ProxyNCALoss(4, 5, assignment=assignment, form="paper", pooling="nearest", seed=3)
    wanted = oracles.proxy_nca(x, loss.bank.proxies.detach(), own(SEVERAL, labels), form="paper", pooling="nearest")
    closely(loss(x, labels), wanted)


@pytest.mark.parametrize("frozen", ["x", "p", "both", "no_grad"])
def test_gradients_that_nobody_wants_are_not_made(frozen: str, monkeypatch: pytest.MonkeyPatch) -> None:
    wanted = []
    kernel = proxy_softmax._proxy_softmax

    def watched(*arguments: Any) -> Any:
        outcome = kernel(*arguments)
        wanted.append([part.numel() > 0 for part in outcome[1:]])
        return outcome

    monkeypatch.setattr(proxy_softmax, "_proxy_softmax", watched)
    x, proxies, labels = drawn(4, 6, 3)
    x.requires_grad_(frozen not in ("x", "both"))
    proxies.requires_grad_(frozen not in ("p", "both"))
    with torch.set_grad_enabled(frozen != "no_grad"):
        value = proxy_nca_loss(x, proxies, labels)
    assert value.requires_grad == (frozen in ("x", "p"))
    assert wanted == [[frozen == "p", frozen == "x", False]]
    x, proxies = x.detach(), proxies.detach()
    assert torch.equal(value.detach(), proxy_nca_loss(x, proxies, labels))


def test_backward_twice_and_scaled_losses() -> None:
    x, proxies, labels = drawn(4, 6, 3)
    x.requires_grad_()
    value = proxy_nca_loss(x, proxies, labels)
    (once,) = torch.autograd.grad(value, x, retain_graph=True)
    (scaled,) = torch.autograd.grad(65536 * value, x, retain_graph=True)
    (again,) = torch.autograd.grad(value, x)
    assert torch.equal(once, again)
    torch.testing.assert_close(scaled, 65536 * once)


def test_a_second_derivative_is_refused_rather_than_wrong() -> None:
    x, proxies, labels = drawn(4, 6, 3)
    x.requires_grad_()
    (slope,) = torch.autograd.grad(proxy_nca_loss(x, proxies, labels).square(), x, create_graph=True)
    with pytest.raises(RuntimeError, match="once_differentiable"):
        slope.sum().backward()


@pytest.mark.parametrize("backend", ["eager", "aot_eager"])
def test_compiles_without_a_break(backend: str) -> None:
    x, _, labels = drawn(9, 6, 3)
    loss = ProxyNCALoss(6, 3, form="paper", seed=0)
    torch.compiler.reset()
    compiled = torch.compile(loss, backend=backend, fullgraph=True)
    assert_same_gradients(lambda x: compiled(x, labels), lambda x: loss(x, labels), x)
    loss.zero_grad()
    compiled(x, labels).backward()
    found = loss.bank.proxies.grad
    loss.zero_grad()
    loss(x, labels).backward()
    torch.testing.assert_close(found, loss.bank.proxies.grad)


@pytest.mark.parametrize("want", list(itertools.product([True, False], repeat=2)))
def test_the_kernel_is_a_sound_operator(want: tuple[bool, bool]) -> None:
    x, proxies, labels = drawn(5, 6, 3)
    x.requires_grad_(want[0])
    proxies.requires_grad_(want[1])
    options = (True, False, False, 0.1, 2, *want, False)
    operator = torch.ops.univert.proxy_softmax.default
    checks = ("test_schema", "test_autograd_registration", "test_faketensor")
    torch.library.opcheck(operator, (x, proxies, labels[:, None], None, *options), test_utils=checks)


@pytest.mark.slow
def test_compiles_with_inductor() -> None:
    x, proxies, labels = drawn(9, 6, 3)
    compiled = torch.compile(proxy_nca_loss, fullgraph=True)
    assert_same_gradients(lambda x, p: compiled(x, p, labels), lambda x, p: proxy_nca_loss(x, p, labels), x, proxies)


def test_no_tensor_of_images_times_proxies_is_made() -> None:
    rows, count, size = 256, 20_000, 8
    x, proxies, labels = drawn(rows, count, size)
    with LargestTensor() as watch:
        proxy_softmax.value_and_gradients(
            x, proxies, labels[:, None], None, True, False, False, 0.0, 16, True, True, False
        )
    assert watch.entries == 16 * count
    assert proxy_softmax.even_chunk_rows(512, 100_000, 64, "cpu") * 100_000 * 4 <= 1 << 26


MEMORY = """
import resource, sys, torch
from univert.losses.proxy_nca_loss import proxy_nca_loss

torch.set_num_threads(1)
def step(rows, count):
    x = torch.randn(rows, 8, requires_grad=True)
    p = torch.randn(count, 8, requires_grad=True)
    proxy_nca_loss(x, p, torch.arange(rows)).backward()
step(8, 16)
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
step(1024, 50_000)
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads Linux's peak of resident memory")
def test_peak_memory_stays_far_below_images_times_proxies() -> None:
    found = subprocess.run([sys.executable, "-c", MEMORY], capture_output=True, text=True, check=True)
    whole_kib = 1024 * 50_000 * 4 / 1024
    assert int(found.stdout) < whole_kib / 4


def test_sampled_negatives_stand_for_all() -> None:
    """exp of the sampled log-sum has the full sum as its mean."""
    x, _, labels = drawn(5, 40, 4)
    loss = ProxyNCALoss(40, 4, 2.0, negatives=10, form="paper", seed=0)
    exact = loss.eval()(x[:1], labels[:1]).exp()
    torch.manual_seed(0)
    loss.train()
    sampled = torch.stack([loss(x[:1], labels[:1]).exp() for _ in range(400)])
    error = sampled.std() / len(sampled) ** 0.5
    assert abs(sampled.mean() - exact) < 4 * error
    assert sampled.std() > 0


@FORMS
@pytest.mark.parametrize("unit_norm", [True, False])
def test_a_weight_of_two_is_a_proxy_there_twice(form: Any, unit_norm: bool) -> None:
    x, p, _ = drawn(5, 6, 3)
    labels = torch.arange(5) % 4  # the last two proxies are nobody's own
    weights = torch.tensor([1.0, 1, 1, 1, 2, 3]).log()
    options: Any = {"scale": 0.5, "form": form, "unit_norm": unit_norm}
    assert_same_gradients(
        lambda x, p: proxy_nca_loss(x, p, labels, log_weights=weights, **options),
        lambda x, p: proxy_nca_loss(x, p[[0, 1, 2, 3, 4, 4, 5, 5, 5]], labels, **options),
        x,
        p,
    )


@FORMS
@pytest.mark.parametrize("negatives", [36, 1000])
def test_enough_negatives_are_the_whole_sum(form: Any, negatives: int) -> None:
    x, _, labels = drawn(5, 40, 4)
    assignment = StaticAssignment.several(20, 2)
    loss = ProxyNCALoss(20, 4, form=form, assignment=assignment, negatives=negatives, seed=0)
    closely(loss(x, labels % 20), loss.eval()(x, labels % 20))


@given(count=st.integers(2, 300), negatives=st.integers(1, 40), rows=st.integers(0, 6), seed=st.integers(0, 99))
@settings(max_examples=60, deadline=None)
def test_samples_hold_each_proxy_once_and_the_own_ones(count: int, negatives: int, rows: int, seed: int) -> None:
    torch.manual_seed(seed)
    own_BM = torch.randint(count, (rows, 2))
    sampled, position, log_weights = sample_proxies(own_BM, count, negatives)
    assert len(sampled.unique()) == len(sampled) == len(log_weights)
    assert torch.equal(sampled[position], own_BM)
    assert 0 <= int(sampled.min()) <= int(sampled.max()) < count
    owned = len(own_BM.unique())
    assert log_weights.exp().sum().item() == pytest.approx(count, rel=1e-5)
    assert len(sampled) - owned == min(max(negatives, 2 - owned), count - owned)


def test_samples_are_uniform_and_follow_the_seed() -> None:
    torch.manual_seed(0)
    own_BM = torch.tensor([[3], [7]])
    counts = torch.zeros(50)
    for _ in range(3000):
        counts[sample_proxies(own_BM, 50, 5)[0]] += 1
    assert counts[own_BM].eq(3000).all()
    others = counts[[i for i in range(50) if i not in (3, 7)]]
    expected = 3000 * 5 / 48
    assert ((others - expected).abs() < 5 * math.sqrt(expected)).all()
    torch.manual_seed(1)
    first = sample_proxies(own_BM, 50, 5)[0]
    torch.manual_seed(1)
    assert torch.equal(first, sample_proxies(own_BM, 50, 5)[0])


def test_a_sparse_step_touches_only_what_was_sampled() -> None:
    x, _, labels = drawn(5, 1000, 4)
    loss = ProxyNCALoss(1000, 4, negatives=20, sparse=True, seed=0)
    start = loss.bank.proxies.detach().clone()
    optimiser = torch.optim.SparseAdam(loss.parameters(), lr=0.1)
    loss(x, labels).backward()
    grad = loss.bank.proxies.grad
    assert grad is not None
    assert grad.is_sparse
    touched = grad.coalesce().indices().flatten()
    assert len(touched) == len(labels.unique()) + 20
    optimiser.step()
    moved = (loss.bank.proxies.detach() != start).any(1).nonzero().flatten()
    assert torch.equal(moved, touched)
    state = optimiser.state[loss.bank.proxies]
    assert torch.equal(state["exp_avg_sq"].any(1).nonzero().flatten(), touched)


def test_sampled_steps_with_an_empty_batch() -> None:
    loss = ProxyNCALoss(10, 4, negatives=1, sparse=True, seed=0)
    value = loss(torch.empty(0, 4), torch.empty(0, dtype=torch.long))
    value.backward()
    assert value == 0


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: ProxyNCALoss(4, 4, float("nan")), "scale .* must be positive and finite"),
        (lambda: ProxyNCALoss(4, 4, pooling="mean"), "pooling must be 'soft' or 'nearest'"),  # type: ignore[arg-type]
        (lambda: ProxyNCALoss(4, 4, label_smoothing=1.5), "label_smoothing must lie in 0..1"),
        (lambda: ProxyNCALoss(4, 4, negatives=0), "negatives must be a whole number of at least 1"),
        (lambda: ProxyNCALoss(4, 4, sparse=True), "sparse=True has no effect"),
        (lambda: ProxyNCALoss(4, 4, negatives=3, label_smoothing=0.1), "label_smoothing must be 0"),
        (lambda: ProxyNCALoss(4, 4, assignment=StaticAssignment.one_per_product(5)), "num_classes = 4"),
        (lambda: NormalizedSoftmaxLoss(4, 4, 0.0), "temperature .* must be positive"),
        (lambda: SoftmaxLoss(4, 4, label_smoothing=-1), "label_smoothing"),
        (
            lambda: softmax_loss(torch.ones(2, 3), torch.ones(4, 3), torch.tensor([0, 1]), bias=torch.ones(3)),
            "bias must be a floating-point vector",
        ),
        (
            lambda: normalized_softmax_loss(torch.ones(2, 3), torch.ones(4, 3), torch.tensor([0, 4])),
            "assigned must lie in 0..3",
        ),
        (
            lambda: proxy_nca_loss(torch.ones(1, 3), torch.ones(2, 3), torch.tensor([[0, 1]]), form="paper"),
            "one owns all 2",
        ),
    ],
)
def test_bad_settings_are_named(make: Callable[[], object], message: str) -> None:
    with pytest.raises(BadInputError, match=message):
        make()


def test_repeated_own_proxies_leave_negatives() -> None:
    x, p, _ = drawn(2, 2, 3)
    value = proxy_nca_loss(x, p, torch.tensor([[0, 0], [1, 1]]), form="paper")
    closely(value, oracles.proxy_nca(x, p, [[0], [1]], form="paper"))


def test_the_sum_is_over_rows() -> None:
    x, p, labels = drawn(6, 5, 3)
    total = proxy_softmax_sum(x, p, labels[:, None])
    parts = [proxy_softmax_sum(x[i : i + 1], p, labels[i : i + 1, None]) for i in range(6)]
    closely(total, torch.stack(parts).sum())
