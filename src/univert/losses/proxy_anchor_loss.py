"""Proxy-Anchor: each proxy pulls its images and pushes the others, the hardest most (Kim et al. 2020)."""

from __future__ import annotations

import torch
from jaxtyping import Float, Integer
from torch import Tensor, nn

from univert.core.tensors import unit_rows
from univert.losses.assigned import checked_assigned, checked_assignment
from univert.losses.checks import check_not_negative, check_positive
from univert.losses.streaming import streamed_sum
from univert.proxies.assignment import StaticAssignment
from univert.proxies.bank import ProxyBank


def proxy_anchor_loss(
    embeddings: Float[Tensor, "B D"],
    proxies: Float[Tensor, "C D"],
    assigned: Integer[Tensor, "B M"] | Integer[Tensor, "B"],
    *,
    margin: float = 0.1,
    alpha: float = 32.0,
    chunk_rows: int | None = None,
) -> Float[Tensor, ""]:
    """Pull of the proxies on their own images, plus their push on all others.

    pull = mean over the proxies p with an image in the batch of
    log(1 + sum over its images x of exp(-alpha (cos(x, p) - margin)));
    push = mean over all proxies of log(1 + sum over the other images of exp(alpha (cos(x, p) + margin))).
    Here the proxy is the anchor: images meet within its sum, so unlike in Proxy-NCA a gradient depends on
    the rest of the batch. C x B is never held: the proxies are streamed in chunks.

    Args:
        embeddings: one row an image.
        proxies: one row a proxy.
        assigned: the rows of each image's own proxies, one or M of them; it is a positive of each.
        margin: delta, in units of cosine.
        alpha: the scale (1/temperature); at 1e4 still exact, as all sums are taken in log-space.
        chunk_rows: proxies a chunk; None chooses.

    Raises:
        BadInputError: wrong shapes or dtypes, an assignment outside the proxies, an alpha that is not positive, a
            margin below zero, fewer than two proxies.

    Source: Kim et al., Proxy Anchor Loss, arXiv 2003.13991, eq. 4.
    """
    assigned_BM = checked_assigned(assigned, embeddings, proxies, loss="Proxy-Anchor")
    check_proxy_anchor(margin, alpha)
    units_CD, x_BD = unit_rows(proxies), unit_rows(embeddings)
    images, count = len(x_BD), len(units_CD)
    # the 1 in the logarithm is one more image, whose logit is always zero
    scaled_BD = nn.functional.pad(alpha * x_BD, (0, 0, 0, 1))
    bias_B = nn.functional.pad(x_BD.new_full((images,), alpha * margin), (0, 1))

    def push(proxies_CD: Tensor, number_C1: Tensor, scaled_BD: Tensor) -> Tensor:
        logits_CB = torch.addmm(bias_B, proxies_CD, scaled_BD.T)
        own_CB = torch.zeros_like(logits_CB, dtype=torch.bool)
        for own_B in assigned_BM.unbind(1):
            own_CB[:, :images] |= number_C1 == own_B
        return logits_CB.masked_fill(own_CB, -torch.inf).logsumexp(1).sum()

    number_C1 = torch.arange(count, device=units_CD.device)[:, None]
    pushed = streamed_sum(push, (units_CD, number_C1), (scaled_BD,), chunk_rows=chunk_rows)
    return pull(units_CD, x_BD, assigned_BM, margin, alpha) + pushed / count


def pull(
    units_CD: Float[Tensor, "C D"],
    x_BD: Float[Tensor, "B D"],
    assigned_BM: Integer[Tensor, "B M"],
    margin: float,
    alpha: float,
) -> Float[Tensor, ""]:
    """Mean over proxies with images of log(1 + sum over their images of exp(-alpha (cos - margin))).

    There are only B x M pairs of an image and a proxy of its own: the sums of all proxies are taken at once, each
    relative to its largest term, or to the 1 if that is larger. A pair named twice counts once.
    """
    own_N = assigned_BM.flatten()
    images_ND = x_BD.repeat_interleave(assigned_BM.shape[1], dim=0)
    logits_N = alpha * (margin - (images_ND * units_CD.index_select(0, own_N)).sum(1))
    repeated_BM = (assigned_BM[:, :, None] == assigned_BM[:, None, :]).tril(-1).any(2)
    logits_N = logits_N.masked_fill(repeated_BM.flatten(), -torch.inf)
    nothing_C = units_CD.new_zeros(len(units_CD))
    top_C = nothing_C.scatter_reduce(0, own_N, logits_N.detach(), "amax")
    sum_C = (-top_C).exp().index_add(0, own_N, (logits_N - top_C[own_N]).exp())
    with_images = nothing_C.index_fill(0, own_N, 1.0).sum().clamp_min(1)
    return (top_C + sum_C.log()).sum() / with_images


def check_proxy_anchor(margin: float, alpha: float) -> None:
    """Refuse settings with which Proxy-Anchor means nothing.

    Raises:
        BadInputError: an alpha that is not positive and finite, a margin below zero or not finite.
    """
    check_positive(alpha, "alpha (scale = 1/temperature)")
    check_not_negative(margin, "margin")


class ProxyAnchorLoss(nn.Module):
    """Module form of `proxy_anchor_loss` with learned proxies.

    The proxies are parameters: hand `parameters()` to the optimiser, with a learning rate well above the
    network's (the paper: 100 times). Sibling of `ProxyNCALoss`, where the image is the anchor.

    Args:
        num_classes: how many products there are; labels run from 0 to `num_classes - 1`.
        embedding_size: D.
        margin: delta, in units of cosine.
        alpha: the scale (1/temperature).
        assignment: which proxies belong to which product; None: one each. With fewer proxies than products, a
            proxy's positives are the images of all its products; with several a product, an image is a
            positive of all of them.
        seed: of the random initial proxies.

    Raises:
        BadInputError: settings out of range, an assignment of other products, no negative proxy.

    Example:
        >>> import torch
        >>> loss = ProxyAnchorLoss(num_classes=3, embedding_size=2, seed=0)
        >>> value = loss(torch.eye(2), torch.tensor([0, 2]))
        >>> bool(value > 0)
        True
    """

    def __init__(
        self,
        num_classes: int,
        embedding_size: int,
        margin: float = 0.1,
        alpha: float = 32.0,
        *,
        assignment: StaticAssignment | None = None,
        seed: int | None = None,
    ) -> None:
        super().__init__()
        check_proxy_anchor(margin, alpha)
        self.assignment = checked_assignment(assignment, num_classes, loss="Proxy-Anchor")
        self.bank = ProxyBank(self.assignment.count, embedding_size, seed=seed)
        self.margin, self.alpha = margin, alpha

    def forward(self, embeddings: Float[Tensor, "B D"], labels: Integer[Tensor, "B"]) -> Float[Tensor, ""]:
        """The loss of one batch; `labels` are products."""
        assigned = self.assignment(labels)
        return proxy_anchor_loss(embeddings, self.bank(), assigned, margin=self.margin, alpha=self.alpha)
