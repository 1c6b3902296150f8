"""NMI: how well plain k-means on the embeddings finds the products again."""

from __future__ import annotations

import faiss
import numpy as np
from sklearn.metrics import normalized_mutual_info_score

from univert.core.errors import BadInputError
from univert.metrics.inputs import (
    Labels,
    Vectors,
    check_length,
    check_vectors,
    label_codes,
    power_of_two_scale,
    take_float32,
)


def nmi(vectors: Vectors, labels: Labels, *, seed: int = 0) -> float:
    """Normalised mutual information between products and k-means clusters, k = number of products.

    NMI(Omega, C) = 2 I(Omega; C) / (H(Omega) + H(C)) (Proxies eq. 8), that is, with the arithmetic mean of
    the entropies. The clusters Omega are one k-means run from randomly drawn rows; the seed fixes it. With
    few images a product NMI is high even for random vectors, so compare it only on the same catalogue.

    Args:
        vectors: (N, D); by Euclidean distance, which for unit vectors orders as cosine similarity does.
        labels: N products, names or codes; unlabelled rows (None or negative) are left out.
        seed: of the first centroids.

    Returns:
        in [0, 1].

    Raises:
        BadInputError: vectors or labels that do not fit, fewer than two products, or a bad seed.
    """
    if not (isinstance(seed, int) and 0 <= seed < 2**31):
        raise BadInputError(f"seed must lie in [0, 2**31), got {seed!r}; take any small number")
    vectors = check_vectors(vectors)
    check_length(labels, len(vectors), name="labels", of="vectors")
    (codes,) = label_codes(labels)
    rows = np.flatnonzero(codes >= 0)
    products = len(np.unique(codes[rows]))
    if products < 2:
        raise BadInputError(
            f"labels must hold at least two products to cluster, got {products}; "
            "add products, or leave NMI out for this selection"
        )
    points = take_float32(vectors, rows, power_of_two_scale([vectors]))
    # The limits on points per centroid would make faiss warn about small data and subsample large data.
    means = faiss.Kmeans(
        points.shape[1], products, niter=20, seed=seed, min_points_per_centroid=1, max_points_per_centroid=len(points)
    )
    means.train(points)
    _, nearest = means.index.search(points, 1)
    return float(normalized_mutual_info_score(codes[rows], nearest[:, 0], average_method="arithmetic"))
