"""What follows the base network: pooling, two fully connected sets, the L2 norm."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor, nn

from univert.core.errors import BadInputError


class AveragePooling(nn.Module):
    """The mean over all places (FIG. 2 of the unified-embedding paper)."""

    def forward(self, maps: Float[Tensor, "B C H W"]) -> Float[Tensor, "B C"]:
        """Pool maps to vectors."""
        return maps.mean((2, 3))


class MaxPooling(nn.Module):
    """The maximum over all places (FIG. 2 of the unified-embedding paper); often better for retrieval with proxies."""

    def forward(self, maps: Float[Tensor, "B C H W"]) -> Float[Tensor, "B C"]:
        """Pool maps to vectors."""
        return maps.amax((2, 3))


class GeMPooling(nn.Module):
    """Generalised mean, (mean of x^p)^(1/p), with a learned p: 1 is the average, large ones near the maximum.

    Negative features count as zero. Source: Radenovic et al., "Fine-tuning CNN image retrieval with no human
    annotation", arXiv 1711.02512, eq. 3. `power` is where p starts.
    """

    def __init__(self, power: float = 3.0) -> None:
        super().__init__()
        self.power = nn.Parameter(torch.tensor(power))

    def forward(self, maps: Float[Tensor, "B C H W"]) -> Float[Tensor, "B C"]:
        """Pool maps to vectors, in single precision whatever the input's."""
        power = self.power.float().clamp(1.0, 16.0)
        maps = maps.float().clamp_min(1e-6)
        # Dividing by the maximum keeps x^p inside the number range; the maximum comes back afterwards.
        largest = maps.detach().amax((2, 3), keepdim=True)
        return (maps / largest).pow(power).mean((2, 3)).pow(1 / power) * largest.flatten(1)


_POOLINGS: dict[str, type[nn.Module]] = {"avg": AveragePooling, "max": MaxPooling, "gem": GeMPooling}


def make_pooling(name: str) -> nn.Module:
    """The pooling called `avg`, `max` or `gem`; others raise a `BadInputError`."""
    if name not in _POOLINGS:
        raise BadInputError(f"pooling must be one of {', '.join(_POOLINGS)}, got {name!r}")
    return _POOLINGS[name]()


class Head(nn.Module):
    """First and second fully connected set, optional batch normalisation: FIG. 2 of the unified-embedding paper.

    Args:
        feature_size: width of the pooled features.
        hidden_sizes: widths of the first set; each layer is Linear, batch normalisation, ReLU. May be empty.
        size: width of the embedding: the second set, one Linear.
        batch_norm: normalise the embedding over the batch before the L2 norm, as the unified-embedding
            paper does for its L2 training.
    """

    def __init__(self, feature_size: int, hidden_sizes: Sequence[int], size: int, *, batch_norm: bool) -> None:
        super().__init__()
        first: list[nn.Module] = []
        width = feature_size
        for hidden in hidden_sizes:
            first += [nn.Linear(width, hidden, bias=False), nn.BatchNorm1d(hidden), nn.ReLU(inplace=True)]
            width = hidden
        self.first = nn.Sequential(*first)
        self.second = nn.Linear(width, size, bias=not batch_norm)
        self.batch_norm = nn.BatchNorm1d(size) if batch_norm else nn.Identity()
        self._normalises_over_batch = batch_norm or bool(hidden_sizes)

    def forward(self, features: Float[Tensor, "B F"]) -> Float[Tensor, "B D"]:
        """Embeddings before the L2 norm; one image alone in training mode raises a `BadInputError`."""
        if self.training and self._normalises_over_batch and len(features) == 1:
            raise BadInputError("a training batch must hold at least 2 images, got 1: batch normalisation needs more")
        embedding: Tensor = self.batch_norm(self.second(self.first(features)))
        return embedding

    @torch.no_grad()
    def start_along(self, directions: Float[Tensor, "F R"], features: Float[Tensor, "N F"]) -> None:
        """Start as a projection: the embedding is what features have along some directions, at most its width of them.

        A hidden layer keeps each direction with both signs, since relu(x) - relu(-x) = x; its other units have no say
        yet. A head with more hidden layers, or with one less than twice as wide as the embedding, stays as it is.

        Args:
            directions: one a column, the most important first.
            features: pooled features of typical images, for the statistics of the batch normalisations.
        """
        linears = [layer for layer in self.first if isinstance(layer, nn.Linear)]
        directions = directions[:, : self.second.out_features].to(self.second.weight)
        count = directions.shape[1]
        if len(linears) > 1 or (linears and linears[0].out_features < 2 * count):
            return
        for parameter in self.second.parameters():
            parameter.zero_()
        if linears:
            signs = torch.cat([torch.eye(count), -torch.eye(count)]).to(directions)
            linears[0].weight[: 2 * count] = signs @ directions.T
            _keep_as_is(self.first[1], linears[0](features))
            self.second.weight[:count, : 2 * count] = signs.T
        else:
            self.second.weight[:count] = directions.T
        if isinstance(self.batch_norm, nn.BatchNorm1d):
            self.eval()
            _keep_as_is(self.batch_norm, self.second(self.first(features)))
            self.train()


def _keep_as_is(norm: nn.Module, inputs: Float[Tensor, "N D"]) -> None:
    """Let a batch normalisation give inputs such as these back as they are."""
    assert isinstance(norm, nn.BatchNorm1d)
    mean, variance = inputs.mean(dim=0), inputs.var(dim=0, unbiased=False)
    for values, found in ((norm.running_mean, mean), (norm.running_var, variance), (norm.bias, mean)):
        assert values is not None
        values.copy_(found)
    norm.weight.copy_((variance + norm.eps).sqrt())
