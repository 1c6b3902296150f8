"""A sample of the proxies that stands for all of them, where there are too many to look at in every step."""

from __future__ import annotations

import math

import torch
from jaxtyping import Float, Integer
from torch import Tensor


def sample_proxies(
    own: Integer[Tensor, "B M"], count: int, negatives: int
) -> tuple[Integer[Tensor, "N"], Integer[Tensor, "B M"], Float[Tensor, "N"]]:
    """The own proxies of a batch and a uniform sample of the others, without replacement.

    A sum over the sample with its log-weights added to the logits is an unbiased estimate of the sum over all: the
    batch's own proxies count once, each drawn one for (others / drawn) of those that no image of the batch owns.

    Args:
        own: the proxies of each row, 0..count-1.
        count: C, number of proxies.
        negatives: how many to draw; where there are fewer others, all are taken.

    Returns:
        the sample's rows of the bank, all different; where in the sample each row's own proxies lie; and the
        log-weights, zero for own proxies. Random numbers come from torch's generator of the device.

    Example:
        >>> import torch
        >>> rows, own, log_weights = sample_proxies(torch.tensor([[7], [3], [7]]), count=100, negatives=5)
        >>> rows[own].flatten().tolist(), len(rows), round(log_weights[-1].exp().item(), 2)
        ([7, 3, 7], 7, 19.6)
    """
    owned_U, position_BM = own.unique(return_inverse=True)
    others = count - len(owned_U)
    drawn = min(max(negatives, 2 - len(owned_U)), others)  # an empty batch owns none, and losses want two proxies
    drawn_N = _distinct(others, drawn, own.device)
    # the j-th proxy that nobody owns lies behind all those owned ones with fewer than j + 1 free proxies before them
    free_before_U = owned_U - torch.arange(len(owned_U), device=own.device)
    drawn_N = drawn_N + torch.searchsorted(free_before_U, drawn_N, right=True)
    weight = math.log(others / drawn) if drawn else 0.0
    log_weights_N = torch.zeros(len(owned_U) + drawn, device=own.device)
    log_weights_N[len(owned_U) :] = weight
    return torch.cat([owned_U, drawn_N]), position_BM, log_weights_N


def _distinct(limit: int, wanted: int, device: torch.device) -> Tensor:
    """So many different integers of 0..limit-1, every choice equally likely."""
    if 4 * wanted >= limit:
        return torch.randperm(limit, device=device)[:wanted]
    while True:
        drawn: Tensor = torch.randint(limit, (2 * wanted + 16,), device=device).unique()
        # `unique` sorts: its first ones would be the smallest
        if len(drawn) >= wanted:
            return drawn[torch.randperm(len(drawn), device=device)[:wanted]]
