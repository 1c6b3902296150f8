"""Proxy-Anchor: each proxy pulls its images and pushes the others, the hardest most (Kim et al. 2020)."""

from __future__ import annotations

from typing import Any, ClassVar

import torch
from jaxtyping import Float, Integer
from torch import Tensor, nn

from univert.core.tensors import unit_rows
from univert.losses.batch import check_not_negative, check_positive
from univert.losses.label_loss import Known
from univert.losses.proxy_loss import ProxyLoss
from univert.losses.streaming import streamed_sum
from univert.proxies.assignment import StaticAssignment


def proxy_anchor_loss(
    embeddings: Float[Tensor, "B D"],
    proxies: Float[Tensor, "C D"],
    own: Integer[Tensor, "B M"],
    *,
    margin: float = 0.1,
    alpha: float = 32.0,
) -> Float[Tensor, ""]:
    """Pull of the proxies on their own images, plus their push on all others.

    pull = mean over the proxies p with an image in the batch of
    log(1 + sum over its images x of exp(-alpha (cos(x, p) - margin)));
    push = mean over all proxies of log(1 + sum over the other images of exp(alpha (cos(x, p) + margin))).
    Here the proxy is the anchor: images meet within its sum, so unlike in Proxy-NCA a gradient depends on
    the rest of the batch. C x B is never held: the proxies are streamed in chunks.

    `own` are the rows of each image's own proxies, which are not checked; the image is a positive of each. Margin and
    alpha are those of `ProxyAnchorLoss`.

    Source: Kim et al., Proxy Anchor Loss, arXiv 2003.13991, eq. 4.
    """
    units_CD, x_BD = unit_rows(proxies), unit_rows(embeddings)
    images, count = len(x_BD), len(units_CD)
    # the 1 in the logarithm is one more image, whose logit is always zero
    scaled_BD = nn.functional.pad(alpha * x_BD, (0, 0, 0, 1))
    bias_B = nn.functional.pad(x_BD.new_full((images,), alpha * margin), (0, 1))

    def push(proxies_CD: Tensor, number_C1: Tensor, scaled_BD: Tensor) -> Tensor:
        logits_CB = torch.addmm(bias_B, proxies_CD, scaled_BD.T)
        own_CB = torch.zeros_like(logits_CB, dtype=torch.bool)
        for own_B in own.unbind(1):
            own_CB[:, :images] |= number_C1 == own_B
        return logits_CB.masked_fill(own_CB, -torch.inf).logsumexp(1).sum()

    number_C1 = torch.arange(count, device=units_CD.device)[:, None]
    pushed = streamed_sum(push, (units_CD, number_C1), (scaled_BD,))
    return _pull(units_CD, x_BD, own, margin, alpha) + pushed / count


def _pull(units_CD: Tensor, x_BD: Tensor, own_BM: Tensor, margin: float, alpha: float) -> Tensor:
    """Mean over proxies with images of log(1 + sum over their images of exp(-alpha (cos - margin))).

    There are only B x M pairs of an image and a proxy of its own: the sums of all proxies are taken at once, each
    relative to its largest term, or to the 1 if that is larger. A pair named twice counts once.
    """
    own_N = own_BM.flatten()
    images_ND = x_BD.repeat_interleave(own_BM.shape[1], dim=0)
    logits_N = alpha * (margin - (images_ND * units_CD.index_select(0, own_N)).sum(1))
    repeated_BM = (own_BM[:, :, None] == own_BM[:, None, :]).tril(-1).any(2)
    logits_N = logits_N.masked_fill(repeated_BM.flatten(), -torch.inf)
    nothing_C = units_CD.new_zeros(len(units_CD))
    top_C = nothing_C.scatter_reduce(0, own_N, logits_N.detach(), "amax")
    sum_C = (-top_C).exp().index_add(0, own_N, (logits_N - top_C[own_N]).exp())
    with_images = nothing_C.index_fill(0, own_N, 1.0).sum().clamp_min(1)
    return (top_C + sum_C.log()).sum() / with_images


class ProxyAnchorLoss(ProxyLoss):
    """Module form of `proxy_anchor_loss` with learned proxies.

    Sibling of `ProxyNCALoss`, where the image is the anchor. With fewer proxies than products, a proxy's positives are
    the images of all its products; with several a product, an image is a positive of all of them.

    Args:
        num_classes: with embedding_size, assignment and seed, see `ProxyLoss`.
        margin: delta, in units of cosine.
        alpha: the scale (1/temperature); at 1e4 still exact, as all sums are taken in log-space.
        options: see `ProxyLoss`.

    Raises:
        BadInputError: settings out of range, an assignment of other products, no negative proxy.

    Example:
        >>> import torch
        >>> loss = ProxyAnchorLoss(num_classes=3, embedding_size=2, seed=0)
        >>> bool(loss(torch.eye(2), torch.tensor([0, 2])) > 0)
        True
    """

    distances: ClassVar = {Known.COSINE: None}
    reducers = ("DivisorReducer",)
    images_meet = True

    def __init__(
        self,
        num_classes: int,
        embedding_size: int,
        margin: float = 0.1,
        alpha: float = 32.0,
        *,
        assignment: StaticAssignment | None = None,
        seed: int | None = None,
        **options: Any,
    ) -> None:
        check_positive(alpha, "alpha (scale = 1/temperature)")
        check_not_negative(margin, "margin")
        super().__init__(num_classes, embedding_size, assignment=assignment, seed=seed, **options)
        self.margin, self.alpha = margin, alpha

    def get_logits(self, embeddings: Float[Tensor, "B D"]) -> Float[Tensor, "B C"]:
        """The cosines with all proxies."""
        return unit_rows(embeddings) @ unit_rows(self.bank.proxies).T

    def _loss(self, embeddings: Float[Tensor, "B D"], own: Integer[Tensor, "B M"]) -> Float[Tensor, ""]:
        return proxy_anchor_loss(embeddings, self.bank(), own, margin=self.margin, alpha=self.alpha)
