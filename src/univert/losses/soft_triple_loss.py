"""SoftTriple: a soft-max over products, each of which owns several centres (Qian et al. 2019)."""

from __future__ import annotations

import torch
from jaxtyping import Float, Integer
from torch import Tensor, nn

from univert.core.errors import BadInputError
from univert.core.tensors import check_indices, unit_rows
from univert.losses.checks import check_embeddings, check_labels, check_not_negative, check_positive
from univert.losses.streaming import streamed_sum
from univert.proxies.assignment import StaticAssignment
from univert.proxies.bank import ProxyBank

NEARBY = 1e-6  # squared distance below which float32 cannot tell two unit centres apart


def soft_triple_loss(
    embeddings: Float[Tensor, "B D"],
    centers: Float[Tensor, "C K D"],
    labels: Integer[Tensor, "B"],
    *,
    la: float = 20.0,
    gamma: float = 0.1,
    margin: float = 0.01,
    tau: float = 0.0,
    chunk_rows: int | None = None,
) -> Float[Tensor, ""]:
    """Mean cross-entropy of la (S(x, c) - margin [c is x's product]) over products c, plus the centre regulariser.

    S(x, c) = sum over centres k of softmax_k(x.w_ck / gamma) x.w_ck is a smooth maximum over the centres of
    product c; all rows are first made unit length. With one centre it is the normalised soft-max with a
    margin. B x (C K) is never held: the images are streamed in chunks.

    Args:
        embeddings: one row an image.
        centers: K centres a product, K >= 1.
        labels: the product of each row, 0..C-1.
        la: lambda, the scale of the outer soft-max (1/temperature).
        gamma: temperature of the inner soft-max, which picks the centre; small: the nearest alone counts.
        margin: delta, by how much the own product's similarity must lead, in units of cosine.
        tau: weight of tau / (C K (K - 1)) * sum over c and s < t of |w_cs - w_ct|, which draws the centres
            that a product does not need together; the paper uses 0.2.
        chunk_rows: images a chunk; None chooses.

    Returns:
        a scalar; of an empty batch, the regulariser alone.

    Raises:
        BadInputError: wrong shapes or dtypes, labels outside the products, fewer than two products, a scale or
            temperature that is not positive, a margin or tau below zero, tau with one centre a product.

    Source: Qian et al., SoftTriple Loss, arXiv 1909.05235, eq. 6-8 and section 3.3.
    """
    check_embeddings(embeddings)
    check_labels(labels, embeddings)
    if centers.ndim != 3 or not centers.is_floating_point():
        found = f"{centers.dtype} of shape {tuple(centers.shape)}"
        raise BadInputError(f"centers must be floating-point, products x centres x size, got {found}")
    products, per_product, size = centers.shape
    if embeddings.shape[1] != size:
        raise BadInputError(f"embeddings and centers must have the same size, got {embeddings.shape[1]} and {size}")
    check_soft_triple(products, per_product, la, gamma, margin, tau)
    check_indices(labels, products, name="labels", rule="must be products in 0..{}")

    def term(x_BD: Tensor, label_B: Tensor, centers_ND: Tensor) -> Tensor:
        cosine_BKC = (x_BD @ centers_ND.T).view(len(x_BD), per_product, products)
        similarity_BC = ((cosine_BKC / gamma).softmax(1) * cosine_BKC).sum(1)
        own_B1 = label_B[:, None]
        logits_BC = la * similarity_BC.scatter_add(1, own_B1, torch.full_like(own_B1, -margin, dtype=x_BD.dtype))
        return nn.functional.cross_entropy(logits_BC, label_B, reduction="sum")

    # centre by centre rather than product by product: the inner soft-max then runs along contiguous memory
    unit_KCD = unit_rows(centers.transpose(0, 1).flatten(0, 1)).view(per_product, products, size)
    total = streamed_sum(term, (unit_rows(embeddings), labels.long()), (unit_KCD.flatten(0, 1),), chunk_rows=chunk_rows)
    loss = total / max(len(labels), 1)
    if tau > 0:
        loss = loss + tau * mean_distance_of_centers(unit_KCD.transpose(0, 1))
    return loss


def mean_distance_of_centers(unit_centers: Float[Tensor, "C K D"]) -> Float[Tensor, ""]:
    """Half the mean distance (not squared) between two unit centres of one product, over products and pairs.

    The root's slope is infinite where centres coincide; there the gradient is zero, so that centres that
    have merged stay merged.
    """
    with torch.autocast(unit_centers.device.type, enabled=False):
        cosine_CKK = unit_centers @ unit_centers.mT
    per_product = cosine_CKK.shape[1]
    s, t = torch.triu_indices(per_product, per_product, offset=1, device=cosine_CKK.device)
    squared_CT = 2 - 2 * cosine_CKK[:, s, t]
    apart_CT = squared_CT > NEARBY
    root_CT = torch.where(apart_CT, squared_CT, 1.0).sqrt()
    return torch.where(apart_CT, root_CT, 0.0).mean() / 2


def check_soft_triple(products: int, per_product: int, la: float, gamma: float, margin: float, tau: float) -> None:
    """Refuse settings with which SoftTriple means nothing.

    Raises:
        BadInputError: naming the setting.
    """
    if products < 2:
        raise BadInputError(f"SoftTriple needs at least 2 products, got {products}: with one there is no negative")
    if per_product < 1:
        raise BadInputError(f"SoftTriple needs at least 1 centre a product, got {per_product}")
    check_positive(la, "la (scale = 1/temperature)")
    check_positive(gamma, "gamma (temperature)")
    check_not_negative(margin, "margin")
    check_not_negative(tau, "tau (weight of the regulariser)")
    if tau > 0 and per_product == 1:
        raise BadInputError("tau draws the centres of a product together and needs at least 2 of them; set tau = 0")


class SoftTripleLoss(nn.Module):
    """Module form of `soft_triple_loss` with learned centres, several a product.

    The centres are parameters: hand `parameters()` to the optimiser, with a learning rate well above the
    network's. They start as random directions. Sibling of `NormalizedSoftmaxLoss`, which has one centre a product;
    for products that look different from several sides.

    Args:
        num_classes: C, how many products there are; labels run from 0 to `num_classes - 1`.
        embedding_size: D.
        centers_per_class: K, centres a product.
        la: lambda, the scale of the outer soft-max (1/temperature).
        gamma: temperature of the inner soft-max.
        margin: by how much the own product must lead, in units of cosine.
        tau: weight of the regulariser that merges centres; 0 leaves it out.
        assignment: which centres belong to which product; None: `several(num_classes, centers_per_class)`.
            Products cannot share centres: two that share all of theirs could never be told apart.
        seed: of the random initial centres.

    Raises:
        BadInputError: settings out of range, or an assignment of other numbers or with shared centres.

    Example:
        >>> import torch
        >>> loss = SoftTripleLoss(num_classes=3, embedding_size=2, centers_per_class=2, tau=0.2, seed=0)
        >>> loss.bank.count
        6
        >>> value = loss(torch.eye(2), torch.tensor([0, 2]))
        >>> bool(value > 0)
        True
    """

    def __init__(
        self,
        num_classes: int,
        embedding_size: int,
        centers_per_class: int = 10,
        la: float = 20.0,
        gamma: float = 0.1,
        margin: float = 0.01,
        *,
        tau: float = 0.0,
        assignment: StaticAssignment | None = None,
        seed: int | None = None,
    ) -> None:
        super().__init__()
        check_soft_triple(num_classes, centers_per_class, la, gamma, margin, tau)
        self.assignment = assignment or StaticAssignment.several(num_classes, centers_per_class)
        found = (self.assignment.products, self.assignment.per_product)
        if found != (num_classes, centers_per_class):
            raise BadInputError(
                f"assignment must have num_classes = {num_classes} products with centers_per_class = "
                f"{centers_per_class} proxies each, got {found[0]} with {found[1]}"
            )
        table = self.assignment.table.flatten()
        if len(table.unique()) < len(table):
            raise BadInputError("assignment must give no proxy to two products: SoftTriple's centres are not shared")
        self.bank = ProxyBank(self.assignment.count, embedding_size, seed=seed)
        self.la, self.gamma, self.margin, self.tau = la, gamma, margin, tau

    def forward(self, embeddings: Float[Tensor, "B D"], labels: Integer[Tensor, "B"]) -> Float[Tensor, ""]:
        """The loss of one batch; `labels` are products."""
        return soft_triple_loss(
            embeddings,
            self.bank.rows(self.assignment.table),
            labels,
            la=self.la,
            gamma=self.gamma,
            margin=self.margin,
            tau=self.tau,
        )
