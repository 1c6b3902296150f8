import numpy as np
import pytest
from sklearn.metrics import normalized_mutual_info_score

from tests.oracles import retrieval as oracle
from univert.core.errors import BadInputError
from univert.metrics.clustering import nmi


def blobs(spread: float, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    labels = np.repeat(np.arange(6), 10)
    return (4 * np.eye(6)[labels] + spread * rng.standard_normal((60, 6))).astype(np.float32), labels


def test_separate_products_are_found_and_noise_is_not() -> None:
    # Plain k-means may start twice in one product, so even perfect data is not always 1.
    assert max(nmi(*blobs(0.01), seed=seed) for seed in range(8)) == pytest.approx(1.0)
    noise = nmi(np.random.default_rng(1).standard_normal((600, 8)), np.repeat(np.arange(6), 100))
    assert 0 <= noise < 0.1
    assert noise < nmi(*blobs(1.5)) < 1


def test_names_and_codes_and_unlabelled_rows_give_the_same() -> None:
    vectors, labels = blobs(2.0)
    names = [f"product {label}" for label in labels]
    more = np.concatenate([vectors, np.full((5, 6), 9.0, dtype=np.float32)])
    assert nmi(vectors, names) == nmi(vectors, labels) == nmi(more, [*names, *[None] * 5])
    assert nmi(vectors * np.float32(2.0**40), labels) == nmi(vectors, labels)


def test_the_formula_is_the_documents() -> None:
    rng = np.random.default_rng(2)
    one, other = rng.integers(0, 7, 200), rng.integers(0, 5, 200)
    ours = oracle.normalised_mutual_information(one.tolist(), other.tolist())
    assert normalized_mutual_info_score(one, other, average_method="arithmetic") == pytest.approx(ours)


def test_degenerate_vectors_give_a_number() -> None:
    labels = [0, 0, 1, 1, 2, 2]
    assert nmi(np.zeros((6, 3)), labels) == pytest.approx(0.0)
    assert nmi(np.arange(3.0)[:, None], [0, 1, 2]) == pytest.approx(1.0)


@pytest.mark.parametrize(
    ("labels", "options", "says"),
    [
        ([0, 0, 0], {}, "at least two products to cluster, got 1"),
        ([0, 1, 1], {"seed": -1}, "seed must lie in"),
        ([0, 1, 1], {"seed": "0"}, "seed must lie in"),
    ],
)
def test_bad_input(labels: list[int | None], options: dict[str, object], says: str) -> None:
    with pytest.raises(BadInputError, match=says):
        nmi(np.eye(3), labels, **options)  # type: ignore[arg-type]
