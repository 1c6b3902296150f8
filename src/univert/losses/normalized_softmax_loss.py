"""Normalised soft-max: Proxy-NCA stated with cosines and a temperature."""

from __future__ import annotations

from typing import Any, ClassVar

from jaxtyping import Float
from torch import Tensor

from univert.core.tensors import unit_rows
from univert.losses.batch import check_positive
from univert.losses.label_loss import Known
from univert.losses.proxy_nca_loss import ProxyNCALoss
from univert.losses.proxy_softmax import Pooling
from univert.proxies.assignment import StaticAssignment


class NormalizedSoftmaxLoss(ProxyNCALoss):
    """Mean of -log( exp(cos(x, p+) / T) / sum over p of exp(cos(x, p) / T) ), with learned proxies p.

    Since the squared distance of unit vectors is 2 - 2 cos, it is a `ProxyNCALoss` whose scale is 1 / (2 T).

    Args:
        num_classes: with embedding_size, assignment and seed, see `ProxyLoss`.
        temperature: T = 1/scale of the cosines.
        pooling: `soft` or `nearest`, for several proxies a product.
        label_smoothing: the part of the target spread over all proxies.
        options: see `ProxyLoss`. With `distance=DotProductSimilarity(normalize_embeddings=False)` the embeddings keep
            their lengths.

    Raises:
        BadInputError: settings out of range, an assignment of other products, no negative proxy.

    Source: Zhai and Wu, Classification is a strong baseline for deep metric learning (arXiv 1811.12649), eq. 3.

    Example:
        >>> import torch
        >>> loss = NormalizedSoftmaxLoss(num_classes=3, embedding_size=2, seed=0)
        >>> loss.softmax_scale
        10.0
        >>> bool(loss(torch.eye(2), torch.tensor([0, 2])) > 0)
        True
    """

    columns = "W"
    distances: ClassVar = {Known.COSINE: None, Known.DOT_AS_IS: None}

    def __init__(
        self,
        num_classes: int,
        embedding_size: int,
        temperature: float = 0.05,
        *,
        pooling: Pooling = "soft",
        label_smoothing: float = 0.0,
        assignment: StaticAssignment | None = None,
        seed: int | None = None,
        **options: Any,
    ) -> None:
        check_positive(temperature, "temperature (= 1/scale)")
        super().__init__(
            num_classes,
            embedding_size,
            0.5 / temperature,
            pooling=pooling,
            label_smoothing=label_smoothing,
            assignment=assignment,
            seed=seed,
            **options,
        )
        self.temperature = temperature

    @property
    def W(self) -> Float[Tensor, "D C"]:  # noqa: N802 - the name it has in pytorch-metric-learning
        """The proxies, one column each; may be replaced."""
        return self.bank.proxies.T

    def get_logits(self, embeddings: Float[Tensor, "B D"]) -> Float[Tensor, "B C"]:
        """The cosines with all proxies over the temperature."""
        rows = embeddings.float() if self._distance == Known.DOT_AS_IS else unit_rows(embeddings)
        return rows @ unit_rows(self.bank.proxies).T / self.temperature
