"""Static assignment: the proxies of a point are defined by its product (the proxies paper, method 900)."""

from __future__ import annotations

import torch
from jaxtyping import Integer
from torch import Tensor, nn

from univert.core.errors import BadInputError
from univert.core.tensors import value_range


class StaticAssignment(nn.Module):
    """A table that gives each product its own proxies; saved with the losses that use it.

    Build one with `one_per_product`, `several`, `fractional` or `of_ratio`, or hand over a table of your own.

    Args:
        table: row l lists the M proxies of product l, each in 0..count-1.
        count: number of proxies; some may belong to no product.

    Attributes:
        table: the table, int64; a buffer, so `state_dict` holds it.
        products: L, how many products there are.
        count: number of proxies.
        per_product: M.

    Raises:
        BadInputError: a table that is no integer matrix, is empty, or names a proxy outside 0..count-1.

    Source: Movshovitz-Attias et al. (arXiv 1703.07464), "static proxy assignment".

    Example:
        >>> import torch
        >>> assignment = StaticAssignment.several(products=3, per_product=2)
        >>> assignment(torch.tensor([2, 0]))
        tensor([[4, 5],
                [0, 1]])
    """

    table: Tensor

    def __init__(self, table: Integer[Tensor, "L M"], count: int) -> None:
        super().__init__()
        check_integers(table, "table", dimensions=2)
        if not table.numel():
            raise BadInputError(f"table must have a row a product and a proxy in each, got shape {tuple(table.shape)}")
        low, high = value_range(table)
        if not 0 <= low <= high < count:
            raise BadInputError(f"table must name proxies in 0..{count - 1} (count = {count}), got {low}..{high}")
        self.register_buffer("table", table.detach().long().clone())
        self.products, self.per_product = table.shape
        self.count = count

    @classmethod
    def one_per_product(cls, products: int) -> StaticAssignment:
        """Product l owns proxy l: the usual choice."""
        return cls.several(products, 1)

    @classmethod
    def several(cls, products: int, per_product: int) -> StaticAssignment:
        """Product l owns the `per_product` proxies that follow l * per_product.

        Raises:
            BadInputError: fewer than one product, or than one proxy a product.
        """
        _check_count("products", products)
        _check_count("per_product", per_product)
        return cls(torch.arange(products * per_product).view(products, per_product), products * per_product)

    @classmethod
    def fractional(cls, products: int, count: int, *, seed: int = 0) -> StaticAssignment:
        """Several products to a proxy, drawn at random; proxies differ by at most one product.

        Products that share a proxy attract each other in training, yet the paper finds that half a
        proxy a product still beats sampling tuples.

        Args:
            products: how many products there are.
            count: number of proxies, at most `products`.
            seed: of the draw.

        Raises:
            BadInputError: fewer than one product, or a count outside 1..products.
        """
        _check_count("products", products)
        _check_count("count", count)
        if count > products:
            raise BadInputError(f"count must be at most products = {products}, got {count}; use several(...) for more")
        order = torch.randperm(products, generator=torch.Generator().manual_seed(seed))
        return cls((order % count)[:, None], count)

    @classmethod
    def of_ratio(cls, products: int, ratio: float, *, seed: int = 0) -> StaticAssignment:
        """Proxies per product as a number: 1 is one each, 0.5 one for two products, 3 three each.

        Args:
            products: how many products there are.
            ratio: proxies per product; above 1 a whole number. Below 1 the number of proxies is rounded,
                and never falls below two (with one proxy there is no negative), or one for one product.
            seed: of the draw of `fractional`.

        Raises:
            BadInputError: fewer than one product, a ratio that is not positive, or above 1 and not whole.
        """
        _check_count("products", products)
        if 0 < ratio < 1:
            return cls.fractional(products, min(max(round(ratio * products), 2), products), seed=seed)
        if not (ratio > 0 and float(ratio).is_integer()):
            raise BadInputError(f"ratio (proxies per product) must be below 1 or a whole number, got {ratio}")
        return cls.several(products, round(ratio))

    def forward(self, labels: Integer[Tensor, "B"]) -> Integer[Tensor, "B M"]:
        """The own proxies of each row.

        Args:
            labels: the product of each row, 0..products-1.

        Raises:
            BadInputError: labels that are no vector of integers, negative, or of a product never seen.
        """
        check_integers(labels, "labels")
        if len(labels) and not torch.compiler.is_compiling():
            low, high = value_range(labels)
            if low < 0 or high >= self.products:
                raise BadInputError(
                    f"labels must be products in 0..{self.products - 1}, got {low}..{high}; number the "
                    "products of the training split from 0, and leave out unlabelled images"
                )
        return self.table.index_select(0, labels.long())

    def extra_repr(self) -> str:
        """What `print` shows."""
        return f"products={self.products}, count={self.count}, per_product={self.per_product}"


def _check_count(name: str, value: int) -> None:
    if value < 1:
        raise BadInputError(f"{name} must be a whole number of at least 1, got {value!r}")


def check_integers(values: Tensor, name: str, *, dimensions: int = 1) -> None:
    """Refuse anything but a vector (or matrix) of integers."""
    shape = "vector" if dimensions == 1 else "matrix"
    if not isinstance(values, Tensor):
        raise BadInputError(f"{name} must be a {shape} of integers, a torch.Tensor, got {values!r:.40}")
    floating = values.is_floating_point() or values.is_complex() or values.dtype is torch.bool
    if values.ndim != dimensions or floating:
        raise BadInputError(f"{name} must be a {shape} of integers, got {values.dtype} of shape {tuple(values.shape)}")
