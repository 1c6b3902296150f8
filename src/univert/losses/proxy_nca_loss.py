"""Proxy-NCA: each image against its product's proxy and all other proxies (Proxies eq. 4)."""

from __future__ import annotations

from typing import Literal

import torch
from jaxtyping import Float, Integer
from torch import Tensor, nn

from univert.core.distances import squared_distances, unit_rows
from univert.core.errors import BadInputError
from univert.losses.checks import check_embeddings, check_labels
from univert.proxies.bank import ProxyBank

Form = Literal["softmax", "paper"]


def proxy_nca_loss(
    embeddings: Float[Tensor, "B D"],
    proxies: Float[Tensor, "C D"],
    assigned: Integer[Tensor, "B"],
    *,
    scale: float = 9.0,
    form: Form = "softmax",
) -> Float[Tensor, ""]:
    """Mean of -log( exp(-s d(x, p+)) / sum over p of exp(-s d(x, p)) ), all rows first made unit length.

    Args:
        embeddings: one row an image.
        proxies: one row a proxy.
        assigned: the row of each image's own proxy p+.
        scale: s = 1/temperature; 9 is "both sides scaled by 3", since d is squared.
        form: `paper` sums over the negative proxies alone, as printed, and can go below zero;
            `softmax` keeps p+ in the sum (ProxyNCA++) and never does.

    Raises:
        BadInputError: wrong shapes or dtypes, an assignment outside the proxies, a scale that is not
            positive, fewer than two proxies.

    Source: Proxies eq. 4 with Algorithm 1; the soft-max form is ProxyNCA++ (arXiv 2004.01113).
    """
    check_embeddings(embeddings)
    check_embeddings(proxies, name="proxies")
    check_labels(assigned, embeddings, name="assigned")
    check_proxy_nca(len(proxies), scale, form)
    if len(assigned) and not 0 <= int(assigned.min()) <= int(assigned.max()) < len(proxies):
        low, high = int(assigned.min()), int(assigned.max())
        raise BadInputError(f"assigned must lie in 0..{len(proxies) - 1}, got {low}..{high}")
    assigned = assigned.long()
    logits_BC = -scale * squared_distances(unit_rows(embeddings), unit_rows(proxies))
    if form == "softmax":
        return nn.functional.cross_entropy(logits_BC, assigned, reduction="sum") / max(len(assigned), 1)
    own_B1 = assigned[:, None]
    positive_B = logits_BC.gather(1, own_B1).squeeze(1)
    negatives_B = logits_BC.scatter(1, own_B1, -torch.inf).logsumexp(1)
    return (negatives_B - positive_B).sum() / max(len(assigned), 1)


def check_proxy_nca(proxies: int, scale: float, form: str) -> None:
    """Refuse settings with which Proxy-NCA means nothing.

    Raises:
        BadInputError: fewer than two proxies, a scale that is not positive, an unknown form.
    """
    if proxies < 2:
        raise BadInputError(
            f"Proxy-NCA needs at least 2 proxies, got {proxies}: with one there is no negative"
        )
    if not scale > 0:
        raise BadInputError(f"scale (= 1/temperature) must be positive, got {scale}")
    if form not in ("softmax", "paper"):
        raise BadInputError(f"form must be 'softmax' or 'paper', got {form!r}")


class ProxyNCALoss(nn.Module):
    """Module form of `proxy_nca_loss` with one learned proxy a product.

    The proxies are parameters: hand `parameters()` to the optimiser, with a learning rate well above
    the network's.

    Args:
        num_classes: how many products there are; labels run from 0 to `num_classes - 1`.
        embedding_size: D.
        scale: 1/temperature.
        form: `softmax` or `paper`.
        seed: of the random initial proxies.

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
        *,
        scale: float = 9.0,
        form: Form = "softmax",
        seed: int | None = None,
    ) -> None:
        super().__init__()
        check_proxy_nca(num_classes, scale, form)
        self.bank = ProxyBank(num_classes, embedding_size, seed=seed)
        self.scale = scale
        self.form: Form = form

    def forward(self, embeddings: Float[Tensor, "B D"], labels: Integer[Tensor, "B"]) -> Float[Tensor, ""]:
        """The loss of one batch; `labels` are products, each its own proxy."""
        return proxy_nca_loss(embeddings, self.bank.proxies, labels, scale=self.scale, form=self.form)
