"""What proxy losses demand of their proxies, and of which proxies belong to which image."""

from __future__ import annotations

import torch
from jaxtyping import Float, Integer
from torch import Tensor

from univert.core.errors import BadInputError
from univert.core.tensors import check_indices
from univert.losses.checks import check_embeddings
from univert.proxies.assignment import StaticAssignment


def checked_assigned(
    assigned: Integer[Tensor, "..."], embeddings: Float[Tensor, "B D"], proxies: Float[Tensor, "C D"], *, loss: str
) -> Integer[Tensor, "B M"]:
    """The own proxies of each row as an int64 matrix; a vector names one a row.

    Under `torch.compile` the range is left to the look-ups, which fail less clearly.

    Raises:
        BadInputError: matrices that do not fit each other, a wrong dtype, fewer than two proxies, or a proxy
            outside 0..C-1. It names the `loss`.
    """
    check_embeddings(embeddings)
    check_embeddings(proxies, name="proxies")
    if embeddings.shape[1] != proxies.shape[1]:
        raise BadInputError(
            f"embeddings and proxies must have the same size, got {embeddings.shape[1]} and {proxies.shape[1]}"
        )
    if len(proxies) < 2:
        raise BadInputError(f"{loss} needs at least 2 proxies, got {len(proxies)}: with one there is no negative")
    integers = not (assigned.is_floating_point() or assigned.is_complex() or assigned.dtype is torch.bool)
    if not integers or assigned.ndim not in (1, 2) or len(assigned) != len(embeddings):
        raise BadInputError(
            f"assigned must hold the proxies of each of the {len(embeddings)} images, as a vector or matrix of "
            f"integers, got {assigned.dtype} of shape {tuple(assigned.shape)}"
        )
    if assigned.ndim == 1:
        assigned = assigned[:, None]
    check_indices(assigned, len(proxies), name="assigned")
    return assigned.long()


def checked_assignment(assignment: StaticAssignment | None, products: int, *, loss: str) -> StaticAssignment:
    """The assignment of a module that has been given one, or not: then one proxy a product.

    Raises:
        BadInputError: an assignment of another number of products, or that leaves no negative proxy.
    """
    assignment = assignment or StaticAssignment.one_per_product(products)
    if assignment.products != products:
        raise BadInputError(
            f"assignment must be of num_classes = {products} products, got one of {assignment.products}"
        )
    distinct = 1 + assignment.table.sort(1).values.diff(dim=1).ne(0).sum(1)
    if int(distinct.max()) >= assignment.count:
        raise BadInputError(
            f"{loss} needs a negative proxy for every product, but one owns all {assignment.count} of them"
        )
    return assignment
