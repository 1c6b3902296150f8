"""Proxy-NCA: each image against its product's proxy and all other proxies (Proxies eq. 4)."""

from __future__ import annotations

from jaxtyping import Float, Integer
from torch import Tensor, nn

from univert.core.errors import BadInputError
from univert.core.tensors import unit_rows
from univert.losses.assigned import checked_assigned, checked_assignment
from univert.losses.checks import Form, check_form, check_positive
from univert.losses.proxy_softmax import Pooling, check_pooling, check_smoothing, proxy_softmax_sum
from univert.losses.sampled_proxies import sample_proxies
from univert.proxies.assignment import StaticAssignment
from univert.proxies.bank import ProxyBank


def proxy_nca_loss(
    embeddings: Float[Tensor, "B D"],
    proxies: Float[Tensor, "C D"],
    assigned: Integer[Tensor, "B M"] | Integer[Tensor, "B"],
    *,
    scale: float = 9.0,
    form: Form = "softmax",
    pooling: Pooling = "soft",
    label_smoothing: float = 0.0,
    unit_norm: bool = True,
    log_weights: Float[Tensor, "C"] | None = None,
    chunk_rows: int | None = None,
) -> Float[Tensor, ""]:
    """Mean of -log( exp(-s d(x, p+)) / sum over p of exp(-s d(x, p)) ), all rows first made unit length.

    d is the squared Euclidean distance. B x C is never held: images are streamed in chunks, and the gradients are
    made in the forward pass, with three matrix products in all. In float32 the value is finite, and exact to
    about s * 1e-7, at any scale up to 1e4 and beyond.

    Args:
        embeddings: one row an image.
        proxies: one row a proxy.
        assigned: the rows of each image's own proxies p+, one or M of them; one named twice counts once.
        scale: s = 1/temperature; 9 is "both sides scaled by 3", since d is squared.
        form: `paper` sums over the negative proxies alone, as printed, and can go below zero;
            `softmax` keeps p+ in the sum (ProxyNCA++) and never does.
        pooling: of several own proxies, `soft` takes the sum of their exponentials, `nearest` the nearest
            alone (eq. 5). The others of them never count as negatives in the `paper` form.
        label_smoothing: this part of the target is spread evenly over all C proxies, as in
            `torch.nn.functional.cross_entropy`; ProxyNCA++ uses 0.1.
        unit_norm: false compares the vectors as they are; lengths then matter.
        log_weights: each proxy counts exp(log-weight) times in every sum; for sampled proxies, which stand for others.
        chunk_rows: images a chunk; None chooses.

    Raises:
        BadInputError: wrong shapes or dtypes, an assignment outside the proxies, a scale that is not
            positive, an unknown form or pooling, a smoothing outside 0..1, fewer than two proxies, no negative.

    Source: Proxies eq. 4 with Algorithm 1; the soft-max form is ProxyNCA++ (arXiv 2004.01113).
    """
    if log_weights is not None and (label_smoothing or log_weights.shape != (len(proxies),)):
        raise BadInputError(
            f"log_weights must be one a proxy, without label_smoothing: got shape {tuple(log_weights.shape)} for "
            f"{len(proxies)} proxies, and label_smoothing = {label_smoothing}"
        )
    assigned_BM = checked_assigned(assigned, embeddings, proxies, loss="Proxy-NCA")
    check_proxy_nca(len(proxies), scale, form, pooling, label_smoothing)
    if form == "paper" and assigned_BM.shape[1] >= len(proxies) and _owns_all(assigned_BM, len(proxies)):
        raise BadInputError(
            f"form 'paper' needs a negative proxy for every image, but one owns all {len(proxies)} of them"
        )
    # |x - p|^2 = |x|^2 + |p|^2 - 2 x.p: what all proxies of a row share cancels
    queries_BD, bias_C = embeddings.float(), log_weights
    if unit_norm:
        queries_BD = unit_rows(queries_BD)
    else:
        lengths_C = proxies.float().square().sum(1)
        bias_C = -scale * lengths_C if bias_C is None else bias_C - scale * lengths_C
    total = proxy_softmax_sum(
        2 * scale * queries_BD,
        proxies,
        assigned_BM,
        bias=bias_C,
        unit_proxies=unit_norm,
        exclude_own=form == "paper",
        pooling=pooling,
        label_smoothing=label_smoothing,
        chunk_rows=chunk_rows,
    )
    return total / max(len(embeddings), 1)


def check_proxy_nca(proxies: int, scale: float, form: str, pooling: str = "soft", label_smoothing: float = 0.0) -> None:
    """Refuse settings with which Proxy-NCA means nothing.

    Raises:
        BadInputError: fewer than two proxies, a scale that is not positive and finite, an unknown form or
            pooling, a smoothing outside 0..1.
    """
    if proxies < 2:
        raise BadInputError(f"Proxy-NCA needs at least 2 proxies, got {proxies}: with one there is no negative")
    check_positive(scale, "scale (= 1/temperature)")
    check_form(form)
    check_pooling(pooling)
    check_smoothing(label_smoothing)


def _owns_all(assigned_BM: Tensor, count: int) -> bool:
    distinct_B = 1 + assigned_BM.sort(1).values.diff(dim=1).ne(0).sum(1)
    return bool((distinct_B >= count).any())


class ProxyNCALoss(nn.Module):
    """Module form of `proxy_nca_loss` with learned proxies.

    The proxies are parameters: hand `parameters()` to the optimiser, with a learning rate well above
    the network's. Siblings: `NormalizedSoftmaxLoss`, the same soft-max stated with cosines, and
    `ProxyTripletLoss`, the same proxies under a hinge. Differs from pytorch-metric-learning's in its default
    scale (9 rather than 1), which trains far better.

    With a million products the sum over all proxies is what a step costs. `negatives` then draws a fresh uniform
    sample of them in every training step, weighted so that the expected sum is the whole one; with `sparse` only
    the rows drawn get a gradient, and `torch.optim.SparseAdam` or SGD without momentum touch no others. In `eval()`
    the loss is exact. Sampling depends on the labels, so that `torch.compile` breaks its graph there.

    Args:
        num_classes: how many products there are; labels run from 0 to `num_classes - 1`.
        embedding_size: D.
        softmax_scale: s = 1/temperature.
        form: `softmax` or `paper`.
        assignment: which proxies belong to which product; None: one each.
        pooling: `soft` or `nearest`, for several proxies a product.
        label_smoothing: the part of the target spread over all proxies.
        negatives: how many proxies to draw beside the batch's own; None sums over all.
        unit_norm: compare unit vectors; false takes embeddings and proxies as they are.
        sparse: sparse gradients of the proxies, for `negatives` with an optimiser that takes them.
        seed: of the random initial proxies.

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

    def __init__(
        self,
        num_classes: int,
        embedding_size: int,
        softmax_scale: float = 9.0,
        *,
        form: Form = "softmax",
        assignment: StaticAssignment | None = None,
        pooling: Pooling = "soft",
        label_smoothing: float = 0.0,
        negatives: int | None = None,
        unit_norm: bool = True,
        sparse: bool = False,
        seed: int | None = None,
    ) -> None:
        super().__init__()
        count = num_classes if assignment is None else assignment.count
        check_proxy_nca(count, softmax_scale, form, pooling, label_smoothing)
        _check_sampling(negatives, sparse, label_smoothing)
        self.assignment = checked_assignment(assignment, num_classes, loss="Proxy-NCA")
        self.bank = ProxyBank(count, embedding_size, sparse=sparse, seed=seed)
        self.softmax_scale = softmax_scale
        self.form: Form = form
        self.pooling: Pooling = pooling
        self.label_smoothing = label_smoothing
        self.negatives = negatives
        self.unit_norm = unit_norm

    def forward(self, embeddings: Float[Tensor, "B D"], labels: Integer[Tensor, "B"]) -> Float[Tensor, ""]:
        """The loss of one batch; `labels` are products."""
        own_BM = self.assignment(labels)
        if self.negatives is None or not self.training:
            proxies, log_weights = self.bank(), None
        else:
            sampled, own_BM, log_weights = sample_proxies(own_BM, self.bank.count, self.negatives)
            proxies = self.bank.rows(sampled)
        return proxy_nca_loss(
            embeddings,
            proxies,
            own_BM,
            scale=self.softmax_scale,
            form=self.form,
            pooling=self.pooling,
            label_smoothing=self.label_smoothing,
            unit_norm=self.unit_norm,
            log_weights=log_weights,
        )


def _check_sampling(negatives: int | None, sparse: bool, label_smoothing: float) -> None:
    if negatives is None:
        if sparse:
            raise BadInputError(
                "sparse=True has no effect without negatives: a sum over all proxies gives each a gradient; "
                "set negatives=n, or leave sparse out"
            )
        return
    if isinstance(negatives, bool) or not isinstance(negatives, int) or negatives < 1:
        raise BadInputError(f"negatives must be a whole number of at least 1, or None, got {negatives!r}")
    if label_smoothing:
        raise BadInputError(
            f"label_smoothing must be 0 with negatives = {negatives}: it needs the mean over all proxies, "
            f"got {label_smoothing}"
        )
