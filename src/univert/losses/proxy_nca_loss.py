"""Proxy-NCA: each image against its product's proxy and all other proxies (the proxies paper, eq. 4)."""

from __future__ import annotations

import math
from typing import Any, ClassVar

import torch
from jaxtyping import Float, Integer
from torch import Tensor

from univert.core.errors import BadInputError
from univert.core.tensors import squared_distances, unit_rows
from univert.losses.batch import Form, check_choice, check_positive
from univert.losses.label_loss import Known
from univert.losses.proxy_loss import ProxyLoss
from univert.losses.proxy_softmax import Pooling, check_smoothing, proxy_softmax_mean
from univert.proxies.assignment import StaticAssignment


def proxy_nca_loss(
    embeddings: Float[Tensor, "B D"],
    proxies: Float[Tensor, "C D"],
    own: Integer[Tensor, "B M"],
    *,
    scale: float = 4.0,
    form: Form = "softmax",
    pooling: Pooling = "soft",
    label_smoothing: float = 0.0,
    log_weights: Float[Tensor, "C"] | None = None,
    unit_embeddings: bool = True,
) -> Float[Tensor, ""]:
    """Mean of -log( exp(-s d(x, p+)) / sum over p of exp(-s d(x, p)) ), all rows first made unit length.

    d is the squared Euclidean distance. B x C is never held: images are streamed in chunks, and the gradients are
    made in the forward pass, with three matrix products in all. In float32 the value is finite, and exact to
    about s * 1e-7, at any scale up to 1e4 and beyond.

    `own` are the rows of each image's own proxies p+, which are not checked; one named twice counts once. A proxy
    counts exp(log-weight) times in the sum, which is for sampled ones that stand for others. `unit_embeddings=False`
    leaves the embeddings as they are. The settings are those of `ProxyNCALoss`.

    Source: Movshovitz-Attias et al. (arXiv 1703.07464), eq. 4 with Algorithm 1; the soft-max form is ProxyNCA++
    (arXiv 2004.01113).
    """
    # |x - p|^2 = 2 - 2 x.p between unit rows: what all proxies of a row share cancels
    return proxy_softmax_mean(
        2 * scale * (unit_rows(embeddings) if unit_embeddings else embeddings.float()),
        proxies,
        own,
        bias=log_weights,
        exclude_own=form == "paper",
        pooling=pooling,
        label_smoothing=label_smoothing,
    )


class ProxyNCALoss(ProxyLoss):
    """Module form of `proxy_nca_loss` with learned proxies.

    Siblings: `NormalizedSoftmaxLoss`, the same loss with a temperature for its parameter, and `ProxyTripletLoss`, the
    same proxies under a hinge. Differs from pytorch-metric-learning's in its default scale (9 rather than 1), which
    trains far better.

    With a million products the sum over all proxies is what a step costs. `negatives` then draws a fresh uniform
    sample of them in every training step, weighted so that the expected sum is the whole one; with `sparse` only
    the rows drawn get a gradient, and `torch.optim.SparseAdam` or SGD without momentum touch no others. In `eval()`
    the loss is exact. Sampling depends on the labels, so that `torch.compile` breaks its graph there.

    Args:
        num_classes: with embedding_size, assignment and seed, see `ProxyLoss`.
        softmax_scale: s = 1/temperature. ProxyNCA++ has 9, "both sides scaled by 3", since d is squared;
            4 found more of products never seen, in two catalogues.
        form: `paper` sums over the negative proxies alone, as printed, and can go below zero; `softmax` keeps p+ in
            the sum (ProxyNCA++) and never does.
        pooling: of several own proxies, `soft` takes the sum of their exponentials, `nearest` the nearest alone
            (eq. 5). The others of them never count as negatives in the `paper` form.
        label_smoothing: this part of the target is spread evenly over all C proxies, as in
            `torch.nn.functional.cross_entropy`; ProxyNCA++ uses 0.1.
        negatives: how many proxies to draw beside the batch's own; None sums over all.
        sparse: sparse gradients of the proxies, for `negatives` with an optimiser that takes them.
        options: see `ProxyLoss`.

    Raises:
        BadInputError: settings out of range, an assignment of other products, no negative proxy, or an option
            that could have no effect beside the others.

    Example:
        >>> import torch
        >>> loss = ProxyNCALoss(num_classes=3, embedding_size=2, seed=0)
        >>> value = loss(torch.eye(2), torch.tensor([0, 2]))
        >>> bool(value > 0)
        True
    """

    distances: ClassVar = {Known.SQUARED: None}

    def __init__(
        self,
        num_classes: int,
        embedding_size: int,
        softmax_scale: float = 4.0,
        *,
        form: Form = "softmax",
        assignment: StaticAssignment | None = None,
        pooling: Pooling = "soft",
        label_smoothing: float = 0.0,
        negatives: int | None = None,
        sparse: bool = False,
        seed: int | None = None,
        **options: Any,
    ) -> None:
        check_positive(softmax_scale, "softmax_scale (= 1/temperature)")
        check_choice(form, Form, "form")
        check_choice(pooling, Pooling, "pooling")
        check_smoothing(label_smoothing)
        if negatives is None and sparse:
            raise BadInputError("sparse=True has no effect without negatives: all proxies get gradients; set negatives")
        if negatives is not None and negatives < 1:
            raise BadInputError(f"negatives must be a whole number of at least 1, or None, got {negatives!r}")
        if negatives is not None and label_smoothing:
            raise BadInputError(
                f"label_smoothing must be 0 with negatives: it needs the mean over all proxies, got {label_smoothing}"
            )
        super().__init__(num_classes, embedding_size, assignment=assignment, sparse=sparse, seed=seed, **options)
        self.softmax_scale = softmax_scale
        self.form: Form = form
        self.pooling: Pooling = pooling
        self.label_smoothing = label_smoothing
        self.negatives = negatives

    def get_logits(self, embeddings: Float[Tensor, "B D"]) -> Float[Tensor, "B C"]:
        """The squared distances to all proxies, all rows of unit length."""
        return squared_distances(unit_rows(embeddings), unit_rows(self.bank.proxies))

    def _loss(self, embeddings: Float[Tensor, "B D"], own: Integer[Tensor, "B M"]) -> Float[Tensor, ""]:
        if self.negatives is None or not self.training:
            proxies, log_weights = self.bank(), None
        else:
            sampled, own, log_weights = sample_proxies(own, self.bank.count, self.negatives)
            proxies = self.bank.rows(sampled)
        return proxy_nca_loss(
            embeddings,
            proxies,
            own,
            scale=self.softmax_scale,
            form=self.form,
            pooling=self.pooling,
            label_smoothing=self.label_smoothing,
            log_weights=log_weights,
            unit_embeddings=self._distance != Known.DOT_AS_IS,
        )


def sample_proxies(
    own: Integer[Tensor, "B M"], count: int, negatives: int
) -> tuple[Integer[Tensor, "N"], Integer[Tensor, "B M"], Float[Tensor, "N"]]:
    """The own proxies of a batch and a uniform sample of the others, without replacement.

    A sum over the sample with its log-weights added to the logits is an unbiased estimate of the sum over all: the
    batch's own proxies count once, each drawn one for (others / drawn) of those that no image of the batch owns.

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
