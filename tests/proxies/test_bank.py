"""The proxy bank: start, rows, gradients."""

import pytest
import torch

from univert.core.errors import BadInputError
from univert.core.tensors import unit_rows
from univert.proxies.assignment import StaticAssignment
from univert.proxies.bank import ProxyBank, means_of_points, split_over_proxies


def test_sparse_gradients_equal_dense_ones_and_touch_only_asked_rows() -> None:
    gradients = []
    for sparse in (False, True):
        bank = ProxyBank(6, 3, sparse=sparse, seed=0)
        bank.rows(torch.tensor([4, 1, 4])).mul(torch.arange(9.0).view(3, 3)).sum().backward()
        assert bank.proxies.grad.is_sparse == sparse
        gradients.append(bank.proxies.grad.to_dense())
    torch.testing.assert_close(gradients[0], gradients[1])
    assert gradients[0].abs().sum(1).nonzero().flatten().tolist() == [1, 4]
    index = torch.tensor([[2, 0], [1, 1]])
    assert torch.equal(bank.rows(index), bank()[index])


def points(products: int, per_product: int, *, size: int = 8, spread: float = 0.1) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(3)
    centres = torch.randn(products, size, generator=generator)
    labels = torch.arange(products).repeat_interleave(per_product)
    return centres[labels] + spread * torch.randn(len(labels), size, generator=generator), labels


def filled(embeddings: torch.Tensor, labels: torch.Tensor, assignment: StaticAssignment, seed: int = 0) -> ProxyBank:
    return ProxyBank(assignment.count, embeddings.shape[1], seed=seed).fill_(embeddings, labels, assignment, seed=seed)


def test_start_from_data_is_the_mean_direction_of_the_points_of_each_proxy() -> None:
    embeddings, labels = points(6, 5)
    shuffled = torch.randperm(30, generator=torch.Generator().manual_seed(0))
    assignment = StaticAssignment.fractional(6, 3, seed=1)
    bank = filled(embeddings[shuffled], labels[shuffled], assignment)
    own = assignment(labels).squeeze(1)
    for proxy in range(3):
        mean = unit_rows(embeddings[own == proxy].double()).mean(0)
        torch.testing.assert_close(bank.proxies[proxy].detach(), (mean / mean.norm()).float())


def test_a_proxy_without_points_keeps_its_random_direction() -> None:
    embeddings, labels = points(4, 3)
    kept = labels != 2
    bank = filled(embeddings[kept], labels[kept], StaticAssignment.one_per_product(4), seed=5)
    assert torch.equal(bank.proxies[2], ProxyBank(4, 8, seed=5).proxies[2])
    opposite = torch.tensor([[1.0, 0.0], [-1.0, 0.0]])
    bank = filled(opposite, torch.zeros(2, dtype=torch.long), StaticAssignment.one_per_product(1))
    torch.testing.assert_close(bank.proxies.norm(dim=1), torch.ones(1))  # no mean direction: none is made up


def test_several_proxies_of_a_product_find_its_parts() -> None:
    embeddings, part = points(6, 20)
    bank = filled(embeddings, part // 2, StaticAssignment.several(3, 2))
    centres, _ = means_of_points(embeddings, part, 6)
    found = (centres @ bank.proxies.detach().T).max(1)
    assert (found.values > 0.999).all()
    assert (found.indices // 2).tolist() == [0, 0, 1, 1, 2, 2]
    assert len(set(found.indices.tolist())) == 6


def test_proxies_never_coincide_though_points_do() -> None:
    embeddings = torch.eye(3)[[0, 0, 0, 1]]
    bank = filled(embeddings, torch.zeros(4, dtype=torch.long), StaticAssignment.several(1, 3))
    similarity = bank.proxies.detach() @ bank.proxies.detach().T
    assert similarity.fill_diagonal_(0).max() < 0.999
    chosen = split_over_proxies(embeddings, torch.tensor([[0, 1, 2]]).expand(4, 3), 3)
    assert len(set(chosen.tolist())) == 2


def test_start_is_repeatable_and_checks_its_input() -> None:
    embeddings, labels = points(5, 6)
    assignment = StaticAssignment.several(5, 2)
    one, two = (filled(embeddings, labels, assignment, seed=4) for _ in range(2))
    assert torch.equal(one.proxies, two.proxies)
    bank = ProxyBank(10, 8)
    for bad in (
        lambda: ProxyBank(0, 3),
        lambda: bank.fill_(embeddings[:, :5], labels, assignment),
        lambda: bank.fill_(embeddings.long(), labels, assignment),
        lambda: bank.fill_(embeddings, labels[:-1], assignment),
        lambda: bank.fill_(embeddings, labels - 1, assignment),
        lambda: bank.fill_(embeddings, labels, StaticAssignment.one_per_product(5)),
    ):
        with pytest.raises(BadInputError):
            bad()
