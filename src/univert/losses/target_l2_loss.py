"""L2 loss to learning targets: how the unified model learns from the specialists."""

from __future__ import annotations

from jaxtyping import Float
from torch import Tensor, nn

from univert.core.errors import BadInputError
from univert.proxies.bank import check_points


def target_l2_loss(embeddings: Float[Tensor, "B D"], targets: Float[Tensor, "B D"]) -> Float[Tensor, ""]:
    """Mean over images of || f_u(I) - f_s(I) ||^2.

    The paper sums over the images; the mean keeps the learning rate independent of the batch size.

    f_u is the unified model's embedding, f_s the learning target: that of the specialist of the image's vertical.

    Raises:
        BadInputError: not two floating-point matrices of the same shape.

    Source: Song et al., Learning unified embedding for apparel recognition (arXiv 1707.05929), eq. 2.
    """
    check_points(embeddings)
    check_points(targets, name="targets")
    if embeddings.shape != targets.shape:
        found = f"{tuple(embeddings.shape)} and {tuple(targets.shape)}"
        raise BadInputError(f"embeddings and targets must have the same shape, got {found}")
    squares_BD = (embeddings.float() - targets.float()).square()
    return squares_BD.sum() / max(len(embeddings), 1)


class TargetL2Loss(nn.Module):
    """Module form of `target_l2_loss`. Needs no product labels: unlabelled images count.

    Example:
        >>> import torch
        >>> TargetL2Loss()(torch.eye(2), torch.eye(2).flip(0)).item()
        2.0
    """

    def forward(self, embeddings: Float[Tensor, "B D"], targets: Float[Tensor, "B D"]) -> Float[Tensor, ""]:
        """The loss of one batch; see `target_l2_loss`."""
        return target_l2_loss(embeddings, targets)
