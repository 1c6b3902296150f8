"""What the losses share: checks of settings and of a batch, its positive and negative pairs, operators of our own."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, Literal, get_args

import torch
from jaxtyping import Bool, Float, Integer
from torch import Tensor
from torch._ops import OpOverload

from univert.core.errors import BadInputError
from univert.proxies.assignment import check_integers
from univert.proxies.bank import check_points

Distance = Literal["squared", "plain"]
Triplets = tuple[Integer[Tensor, "T"], Integer[Tensor, "T"], Integer[Tensor, "T"]]
"""Rows of a batch: anchors, positives, negatives."""
Form = Literal["softmax", "paper"]
"""Of NCA losses: `softmax` keeps the positive in the sum, `paper` leaves it out, as printed."""


def check_positive(value: float, name: str) -> None:
    """Refuse a setting that is not positive and finite; `name` may say what it is also called."""
    if not 0 < value < math.inf:
        raise BadInputError(f"{name} must be positive and finite, got {value}")


def check_not_negative(value: float, name: str) -> None:
    """Refuse a setting that is below zero or not finite."""
    if not 0 <= value < math.inf:
        raise BadInputError(f"{name} must be at least 0 and finite, got {value}")


def check_choice(value: str, choices: Any, name: str) -> None:
    """Refuse a setting that is none of the words of a `Literal`."""
    if value not in get_args(choices):
        raise BadInputError(f"{name} must be one of {', '.join(get_args(choices))}; got {value!r}")


def check_labels(labels: Tensor, embeddings: Tensor, *, name: str = "labels") -> None:
    """Refuse anything but a vector of integers, one a row of `embeddings`."""
    check_integers(labels, name)
    if len(labels) != len(embeddings):
        raise BadInputError(f"{name} must be as many as the embeddings: {len(labels)} against {len(embeddings)}")


def check_batch(embeddings: Tensor, labels: Tensor, verticals: Tensor | None = None) -> None:
    """Refuse anything but a floating-point matrix, and an integer or two for each of its rows."""
    check_points(embeddings)
    check_labels(labels, embeddings)
    if verticals is not None:
        check_labels(verticals, embeddings, name="verticals")


def negative_mask(
    labels: Integer[Tensor, "A"],
    other_labels: Integer[Tensor, "B"],
    verticals: Integer[Tensor, "A"] | None = None,
    other_verticals: Integer[Tensor, "B"] | None = None,
) -> Bool[Tensor, "A B"]:
    """True where two rows show different products; given verticals, different products of one vertical."""
    mask_AB = labels[:, None] != other_labels
    if verticals is not None and other_verticals is not None:
        mask_AB &= verticals[:, None] == other_verticals
    return mask_AB


def plain_distances(squared: Float[Tensor, "..."]) -> Float[Tensor, "..."]:
    """Square roots of squared distances, with gradient zero (not infinite) where that is zero. NaN stays NaN."""
    same = squared <= 0
    return torch.where(same, 0.0, torch.where(same, 1.0, squared).sqrt())


def define_operator(schema: str, kernel: Callable[..., Any], shapes: Callable[..., Any]) -> OpOverload:
    """Make a function of tensors an operator: opaque to `torch.compile`, which cannot trace sizes that labels decide.

    The kernel must not change its arguments; `shapes` gives empty tensors of the shapes and dtypes that it gives.
    `torch.library.custom_op` would import the compiler at its first call: seconds and 160 MB.
    """
    name, _, signature = schema.partition("(")
    torch.library.define(f"univert::{name}", f"({signature}")
    torch.library.impl(f"univert::{name}", "default", kernel)
    torch.library.register_fake(f"univert::{name}", shapes)
    operator: OpOverload = getattr(torch.ops.univert, name).default
    return operator
