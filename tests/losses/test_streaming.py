import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from tests.losses.watch import assert_same_gradients
from univert.losses import streaming
from univert.losses.streaming import rows_per_chunk, streamed_sum


def term(x_BD: Tensor, labels_B: Tensor, weights_B: Tensor, proxies_CD: Tensor, bias_C: Tensor) -> Tensor:
    logits_BC = x_BD @ proxies_CD.T + bias_C
    return (weights_B * nn.functional.cross_entropy(logits_BC, labels_B, reduction="none")).sum()


def inputs(rows: int, others: int, seed: int = 0) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)

    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator)

    labels = torch.randint(others, (rows,), generator=generator)
    return normal(rows, 4), labels, normal(rows), normal(others, 4), normal(others)


@pytest.fixture
def three_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(streaming, "rows_per_chunk", lambda columns: 3)


@given(rows=st.integers(0, 12), others=st.integers(1, 6), chunk_rows=st.integers(1, 13), seed=st.integers(0, 99))
@settings(max_examples=40, deadline=None)
def test_equals_the_sum_in_one_piece(rows: int, others: int, chunk_rows: int, seed: int) -> None:
    x, labels, weights, proxies, bias = inputs(rows, others, seed)

    def streamed(x: Tensor, weights: Tensor, proxies: Tensor, bias: Tensor) -> Tensor:
        return streamed_sum(term, (x, labels, weights), (proxies, bias)).square()

    def whole(x: Tensor, weights: Tensor, proxies: Tensor, bias: Tensor) -> Tensor:
        return term(x.double(), labels, weights.double(), proxies.double(), bias.double()).square()

    arguments = (x, weights, proxies, bias)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(streaming, "rows_per_chunk", lambda columns: chunk_rows)
        torch.testing.assert_close(streamed(*arguments), whole(*arguments).float(), rtol=1e-4, atol=1e-5)
        assert_same_gradients(streamed, whole, *arguments, tolerance=1e-3)


@pytest.mark.parametrize("frozen", range(4))
@pytest.mark.usefixtures("three_rows")
def test_gradients_of_some_inputs_alone(frozen: int) -> None:
    x, labels, weights, proxies, bias = inputs(7, 3)
    tensors = [x, weights, proxies, bias]
    wanted = [tensor.requires_grad_(i != frozen) for i, tensor in enumerate(tensors) if i != frozen]
    value = streamed_sum(term, (x, labels, weights), (proxies, bias))
    found = torch.autograd.grad(value, wanted)
    for one, other in zip(found, torch.autograd.grad(term(x, labels, weights, proxies, bias), wanted), strict=True):
        torch.testing.assert_close(one, other)
    with torch.no_grad():
        alone = streamed_sum(term, (x, labels, weights), (proxies, bias))
    assert not alone.requires_grad
    torch.testing.assert_close(alone, value.detach())


@pytest.mark.usefixtures("three_rows")
def test_an_input_that_the_term_leaves_out_gets_zeros() -> None:
    x, unused = torch.ones(7, 2, requires_grad=True), torch.ones(4, 2, requires_grad=True)
    by_x, by_unused = torch.autograd.grad(streamed_sum(lambda x, _: x.sum() * 2, (x,), (unused,)), (x, unused))
    assert torch.equal(by_x, torch.full((7, 2), 2.0))
    assert not by_unused.any()


def test_no_rows_give_zero_with_zero_gradients() -> None:
    x, proxies = torch.ones(0, 2, requires_grad=True), torch.full((4, 2), torch.inf, requires_grad=True)
    value = streamed_sum(lambda x, p: (x @ p.T).sum(), (x,), (proxies,))
    grads = torch.autograd.grad(value, (x, proxies))
    assert value == 0
    assert not any(grad.any() for grad in grads)


@pytest.mark.usefixtures("three_rows")
def test_float64_stays_float64() -> None:
    x, labels, weights, proxies, bias = (
        tensor.double() if tensor.is_floating_point() else tensor for tensor in inputs(7, 3)
    )
    x.requires_grad_()
    assert torch.autograd.gradcheck(lambda x: streamed_sum(term, (x, labels, weights), (proxies, bias)), (x,))


@pytest.mark.usefixtures("three_rows")
def test_compiles_without_a_break() -> None:
    x, labels, weights, proxies, bias = inputs(7, 3)

    def streamed(x: Tensor, proxies: Tensor) -> Tensor:
        return streamed_sum(term, (x, labels, weights), (proxies, bias))

    torch.compiler.reset()
    compiled = torch.compile(streamed, backend="aot_eager", fullgraph=True)
    torch.testing.assert_close(compiled(x, proxies), streamed(x, proxies))
    assert_same_gradients(compiled, streamed, x, proxies)


def test_chunks_are_of_some_megabytes() -> None:
    assert rows_per_chunk(100_000) * 100_000 * 4 <= 1 << 24 < (rows_per_chunk(100_000) + 1) * 100_000 * 4
    assert rows_per_chunk(10**9) == 1
