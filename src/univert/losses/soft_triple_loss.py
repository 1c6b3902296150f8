"""SoftTriple: a soft-max over products, each of which owns several centres (Qian et al. 2019)."""

from __future__ import annotations

from typing import Any, ClassVar

import torch
from jaxtyping import Float, Integer
from torch import Tensor, nn

from univert.core.errors import BadInputError
from univert.core.tensors import unit_rows
from univert.losses.batch import check_not_negative, check_positive
from univert.losses.label_loss import Known
from univert.losses.proxy_loss import ProxyLoss
from univert.losses.streaming import streamed_sum
from univert.proxies.assignment import StaticAssignment


def soft_triple_loss(
    embeddings: Float[Tensor, "B D"],
    centers: Float[Tensor, "C K D"],
    labels: Integer[Tensor, "B"],
    *,
    la: float = 20.0,
    gamma: float = 0.1,
    margin: float = 0.01,
    tau: float = 0.0,
) -> Float[Tensor, ""]:
    """Mean cross-entropy of la (S(x, c) - margin [c is x's product]) over products c, plus the centre regulariser.

    S(x, c) = sum over centres k of softmax_k(x.w_ck / gamma) x.w_ck is a smooth maximum over the centres of
    product c; all rows are first made unit length. With one centre it is the normalised soft-max with a
    margin. B x (C K) is never held: the images are streamed in chunks.

    The labels are not checked; the settings are those of `SoftTripleLoss`. An empty batch has the regulariser alone.

    Source: Qian et al., SoftTriple Loss, arXiv 1909.05235, eq. 6-8 and section 3.3.
    """
    products, per_product, size = centers.shape

    def term(x_BD: Tensor, label_B: Tensor, centers_ND: Tensor) -> Tensor:
        similarity_BC = _similarities(x_BD, centers_ND.view(per_product, products, size), gamma)
        own_B1 = label_B[:, None]
        logits_BC = la * similarity_BC.scatter_add(1, own_B1, torch.full_like(own_B1, -margin, dtype=x_BD.dtype))
        return nn.functional.cross_entropy(logits_BC, label_B, reduction="sum")

    # centre by centre rather than product by product: the inner soft-max then runs along contiguous memory
    unit_KCD = unit_rows(centers.transpose(0, 1).flatten(0, 1)).view(per_product, products, size)
    total = streamed_sum(term, (unit_rows(embeddings), labels), (unit_KCD.flatten(0, 1),))
    loss = total / max(len(labels), 1)
    if tau > 0:
        loss = loss + tau * mean_distance_of_centers(unit_KCD.transpose(0, 1))
    return loss


def _similarities(unit_BD: Tensor, unit_KCD: Tensor, gamma: float) -> Tensor:
    """S(x, c): the smooth maximum over the centres of each product."""
    cosine_BKC = (unit_BD @ unit_KCD.flatten(0, 1).T).view(len(unit_BD), *unit_KCD.shape[:2])
    return ((cosine_BKC / gamma).softmax(1) * cosine_BKC).sum(1)


def mean_distance_of_centers(unit_centers: Float[Tensor, "C K D"]) -> Float[Tensor, ""]:
    """Half the mean distance (not squared) between two unit centres of one product, over products and pairs.

    The root's slope is infinite where centres coincide; there `cdist` has gradient zero: what merged stays merged.
    """
    products, per_product, _ = unit_centers.shape
    distances_CKK = torch.cdist(unit_centers, unit_centers, compute_mode="donot_use_mm_for_euclid_dist")
    return distances_CKK.sum() / (2 * products * per_product * (per_product - 1))


class SoftTripleLoss(ProxyLoss):
    """Module form of `soft_triple_loss` with learned centres, several a product; they start as random directions.

    Sibling of `NormalizedSoftmaxLoss`, which has one centre a product; for products that look different from several
    sides. Products cannot share centres: two that share all of theirs could never be told apart.

    Args:
        num_classes: C; with embedding_size and seed, see `ProxyLoss`.
        centers_per_class: K, centres a product.
        la: lambda, the scale of the outer soft-max (1/temperature).
        gamma: temperature of the inner soft-max, which picks the centre; small: the nearest alone counts.
        margin: delta, by how much the own product's similarity must lead, in units of cosine.
        tau: weight of tau / (C K (K - 1)) * sum over c and s < t of |w_cs - w_ct|, which draws the centres
            that a product does not need together; the paper uses 0.2.

    Raises:
        BadInputError: settings out of range.

    Example:
        >>> import torch
        >>> loss = SoftTripleLoss(num_classes=3, embedding_size=2, centers_per_class=2, tau=0.2, seed=0)
        >>> loss.bank.count
        6
        >>> bool(loss(torch.eye(2), torch.tensor([0, 2])) > 0)
        True
    """

    columns = "fc"
    distances: ClassVar = {Known.COSINE: None}

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
        seed: int | None = None,
        **options: Any,
    ) -> None:
        check_positive(la, "la (scale = 1/temperature)")
        check_positive(gamma, "gamma (temperature)")
        check_not_negative(margin, "margin")
        check_not_negative(tau, "tau (weight of the regulariser)")
        if tau > 0 and centers_per_class == 1:
            raise BadInputError("tau draws the centres of a product together and needs at least 2 of them; set tau = 0")
        own = StaticAssignment.several(num_classes, centers_per_class)
        super().__init__(num_classes, embedding_size, assignment=own, seed=seed, **options)
        self.la, self.gamma, self.margin, self.tau = la, gamma, margin, tau

    @property
    def fc(self) -> Float[Tensor, "D N"]:
        """The centres, one column each, those of a product side by side; may be replaced."""
        return self.bank.proxies.T

    def get_logits(self, embeddings: Float[Tensor, "B D"]) -> Float[Tensor, "B C"]:
        """The similarities S(x, c) to all products."""
        unit_CKD = unit_rows(self.bank.proxies).view(*self.assignment.table.shape, -1)
        return _similarities(unit_rows(embeddings), unit_CKD.transpose(0, 1), self.gamma)

    def _loss(self, embeddings: Float[Tensor, "B D"], own: Integer[Tensor, "B M"]) -> Float[Tensor, ""]:
        products, per_product = self.assignment.table.shape
        centers = self.bank().view(products, per_product, -1)
        labels = own[:, 0] // per_product  # a product's centres lie side by side
        return soft_triple_loss(
            embeddings, centers, labels, la=self.la, gamma=self.gamma, margin=self.margin, tau=self.tau
        )
