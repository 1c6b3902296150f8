"""Structured clustering: the products' own medoids against better-looking medoids of the batch (Song et al. 2017)."""

from __future__ import annotations

import math
from typing import Any

import torch
from jaxtyping import Float, Integer
from torch import Tensor

from univert.losses.batch import check_not_negative, define_operator, plain_distances
from univert.losses.label_loss import Batch, LabelLoss

TIE = 1e-9  # relative: scores closer than this are equal but for rounding


def structured_clustering_loss(
    embeddings: Float[Tensor, "B D"], labels: Integer[Tensor, "B"], *, gamma: float = 1.0
) -> Float[Tensor, ""]:
    """Hinge on how far some clustering's score exceeds that of the clustering by products.

        [ max over S of { F(S) + gamma (1 - NMI(g(S), products)) } - F~ ]_+

    S are as many medoids as the batch has products, g(S) assigns each image to its nearest medoid, and F(S) is
    minus the mean plain distance of an image to it. F~ is minus the mean distance to the own product's medoid. So the
    loss draws images to their product's medoid, and from the medoids of clusters that look good but mix products.

    The maximum is sought as the paper does: medoids are added greedily, each the one that scores best (Algorithm 1),
    then swapped for members of their own cluster (Algorithm 2), here always the best swap of all until
    none helps, so that the order of the batch changes nothing. What is found is a lower bound of the maximum. The
    gradient flows through the distances to the medoids found, which are exact differences of rows.

    The search takes O(products B^2) time and O(B^2) memory, and runs in float64.

    The value is zero, with zero gradients, where each image or all of them are one product.

    Source: Song et al., Deep metric learning via facility location, arXiv 1612.01213, eq. 5-8 and Algorithms 1 and 2.
    """
    x = embeddings.float()
    found_B, own_B, mixing = _search_medoids(x.detach(), labels, gamma)
    to_found_B = plain_distances((x - x[found_B]).square().sum(1))
    to_own_B = plain_distances((x - x[own_B]).square().sum(1))
    gap = (to_own_B - to_found_B).sum() / max(len(x), 1)
    loss: Tensor = (gap + gamma * mixing.float()).relu()
    return loss


def _search(x: Tensor, labels: Tensor, gamma: float) -> tuple[Tensor, Tensor, Tensor]:
    """For each image the row of its medoid in the clustering found, that of its product's medoid; and 1 - NMI."""
    if not len(x):
        return labels.long(), labels.long(), x.new_zeros((), dtype=torch.float64)
    with torch.autocast(x.device.type, enabled=False):
        x = x.double()
        squares_B = x.square().sum(1)
        squared_BB = torch.addmm(squares_B[:, None] + squares_B, x, x.T, alpha=-2)
    # rows that are not finite are near all: the search goes on, and their NaN comes back with the distances
    distances_BB = squared_BB.clamp_min_(0).sqrt_().nan_to_num_(0.0, 0.0).fill_diagonal_(0)
    products, product_B = labels.unique(return_inverse=True)
    search = _MedoidSearch(distances_BB, product_B, len(products), gamma)
    for _ in range(len(products)):
        search.add()
    for _ in range(len(products)):
        if not search.swap():
            break
    found_B = torch.stack(search.medoids)[search.cluster_B]
    return found_B, _own_medoids(distances_BB, product_B, len(products)), search.mixing


def _own_medoids(distances_BB: Tensor, product_B: Tensor, products: int) -> Tensor:
    """For each image the row of its product's medoid: the member with the smallest sum of distances to the others."""
    sums_B = (distances_BB * (product_B[:, None] == product_B)).sum(1)
    least_P = sums_B.new_full((products,), torch.inf).scatter_reduce(0, product_B, sums_B, "amin")
    row_B = torch.arange(len(sums_B), device=sums_B.device)
    medoid_B = torch.where(sums_B <= least_P[product_B], row_B, len(row_B))
    return row_B.new_full((products,), len(row_B)).scatter_reduce(0, product_B, medoid_B, "amin")[product_B]


class _MedoidSearch:
    """Medoids of a batch (their rows), one a cluster, found one by one; each step scores all B candidates at once."""

    def __init__(self, distances_BB: Tensor, product_B: Tensor, products: int, gamma: float) -> None:
        self.distances_BB, self.product_B, self.products = distances_BB, product_B, products
        self.weight = gamma * len(product_B)
        self.spread_B = distances_BB.sum(1)
        sizes = torch.arange(len(product_B) + 1, dtype=torch.float64, device=product_B.device)
        self.table = torch.xlogy(sizes, sizes)
        self.product_logs = _size_logs(product_B[None], products, self.table)
        self.medoids: list[Tensor] = []
        self.cluster_B = torch.zeros_like(product_B)
        self.reach_B = torch.full_like(self.spread_B, torch.inf)
        self.score, self.mixing = -self.reach_B[0], self.reach_B.new_ones(())

    def add(self) -> None:
        """Add the medoid that gives the best score; images that it is nearest to move to its new cluster."""
        new = len(self.medoids)
        moved_BB = self.distances_BB < self.reach_B
        reach_BB = torch.minimum(self.distances_BB, self.reach_B)
        cluster_BB = torch.where(moved_BB, new, self.cluster_B)
        # cells, the images of one product in one cluster, numbered so that the tables of counts stay small
        (cell_B,), cells = self._cells(self.cluster_B)
        cell_BB = torch.where(moved_BB, cells + self.product_B, cell_B)
        scores_B, mixing_B = self._scores(reach_BB, cluster_BB, cell_BB, cells)
        if self.medoids:
            scores_B[torch.stack(self.medoids)] = -torch.inf
        best = self._best(scores_B)
        self.medoids.append(best)
        self._take(best, scores_B, mixing_B, reach_BB, cluster_BB)

    def swap(self) -> bool:
        """Put the best image in the place of its cluster's medoid; false, and no change, if none is better."""
        medoids_P = torch.stack(self.medoids)
        others_PB = self.distances_BB[medoids_P].scatter_(0, self.cluster_B[None], torch.inf)
        second_B, second_cluster_B = others_PB.min(0)
        mine_BB = self.cluster_B[:, None] == self.cluster_B
        without_BB = torch.where(mine_BB, second_B, self.reach_B)
        moved_BB = self.distances_BB < without_BB
        reach_BB = torch.minimum(self.distances_BB, without_BB)
        cluster_BB = torch.where(
            moved_BB, self.cluster_B[:, None], torch.where(mine_BB, second_cluster_B, self.cluster_B)
        )
        (cell_B, second_cell_B), cells = self._cells(self.cluster_B, second_cluster_B)
        cell_BB = torch.where(moved_BB, cells + self.product_B, torch.where(mine_BB, second_cell_B, cell_B))
        scores_B, mixing_B = self._scores(reach_BB, cluster_BB, cell_BB, cells)
        best = self._best(scores_B)
        if not scores_B[best] > self.score + TIE * (1 + self.score.abs()):
            return False
        self.medoids[int(self.cluster_B[best])] = best
        self._take(best, scores_B, mixing_B, reach_BB, cluster_BB)
        return True

    def _cells(self, *clusters_B: Tensor) -> tuple[tuple[Tensor, ...], int]:
        keys = torch.cat([cluster_B * self.products + self.product_B for cluster_B in clusters_B])
        cells, cell = keys.unique(return_inverse=True)
        return cell.split(len(self.product_B)), len(cells)

    def _scores(self, reach_BB: Tensor, cluster_BB: Tensor, cell_BB: Tensor, cells: int) -> tuple[Tensor, Tensor]:
        """Of each candidate's clustering: the loss-augmented score, summed over images, and 1 - NMI."""
        rows = len(self.product_B)
        cluster_logs_B = _size_logs(cluster_BB, self.products, self.table)
        cell_logs_B = _size_logs(cell_BB, cells + self.products, self.table)
        information_B = (cell_logs_B - cluster_logs_B - self.product_logs) / rows + math.log(rows)
        entropy_B = math.log(rows) - cluster_logs_B / rows
        product_entropy = math.log(rows) - self.product_logs / rows
        scale_B = (entropy_B * product_entropy).clamp_min(0).sqrt()
        # one cluster knows nothing of several products, but all of a single one
        alone_B = torch.where((entropy_B < TIE) & (product_entropy < TIE), 1.0, 0.0).double()
        nmi_B = torch.where(scale_B > TIE, information_B / scale_B, alone_B).clamp(0, 1)
        mixing_B = 1 - nmi_B
        return self.weight * mixing_B - reach_BB.sum(1), mixing_B

    def _best(self, scores_B: Tensor) -> Tensor:
        """The best candidate; of equals, the most central, so that neither rounding nor order decides."""
        best = scores_B.max()
        return torch.where(scores_B >= best - TIE * (1 + best.abs()), self.spread_B, torch.inf).argmin()

    def _take(self, best: Tensor, scores_B: Tensor, mixing_B: Tensor, reach_BB: Tensor, cluster_BB: Tensor) -> None:
        self.score, self.mixing = scores_B[best], mixing_B[best]
        self.reach_B, self.cluster_B = reach_BB[best], cluster_BB[best]


def _size_logs(group_CB: Tensor, groups: int, table: Tensor) -> Tensor:
    """For each line, the sum over its groups of n log n (the table), n the number of entries in the group."""
    one = torch.ones((), dtype=torch.int64, device=group_CB.device)
    sizes_CG = torch.zeros(len(group_CB), groups, dtype=torch.int64, device=group_CB.device)
    sizes_CG.scatter_add_(1, group_CB, one.expand_as(group_CB))
    return table.take(sizes_CG).sum(1)


def _search_shapes(x: Tensor, labels: Tensor, *_: Any) -> tuple[Tensor, Tensor, Tensor]:
    rows_B = torch.empty_like(labels, dtype=torch.int64)
    return rows_B, torch.empty_like(rows_B), x.new_empty((), dtype=torch.float64)


_search_medoids = define_operator(
    "search_medoids(Tensor x, Tensor labels, float gamma) -> (Tensor, Tensor, Tensor)", _search, _search_shapes
)


class StructuredClusteringLoss(LabelLoss):
    """Module form of `structured_clustering_loss`, which looks at the batch as a whole rather than at its pairs.

    Args:
        gamma: how much worse a clustering that has nothing of the products must be, in units of distance an image.
            The paper's F sums over images: its gamma is this one times B.

    Raises:
        BadInputError: gamma below zero or not finite.

    Example:
        >>> import torch
        >>> embeddings = torch.tensor([[1.0, 0.0], [0.8, 0.6], [0.6, 0.8], [0.0, 1.0]])
        >>> round(StructuredClusteringLoss()(embeddings, torch.tensor([0, 1, 1, 0])).item(), 4)
        1.108
    """

    def __init__(self, gamma: float = 1.0) -> None:
        super().__init__()
        check_not_negative(gamma, "gamma")
        self.gamma = gamma

    def _value(self, batch: Batch) -> Float[Tensor, ""]:
        return structured_clustering_loss(batch.embeddings, batch.labels, gamma=self.gamma)
