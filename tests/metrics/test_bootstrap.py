import numpy as np
import pytest

from tests.oracles import retrieval as oracle
from univert.core.errors import BadInputError
from univert.metrics import bootstrap
from univert.metrics.bootstrap import bootstrap_interval


def queries(products: int = 80, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Hits that hang together within a product, products of different sizes."""
    rng = np.random.default_rng(seed)
    product = np.repeat(np.arange(products), rng.integers(1, 9, products))
    return (rng.random(len(product)) < rng.random(products)[product]).astype(float), product


def test_it_is_the_quantiles_of_the_naive_resamples() -> None:
    values, products = queries()
    low, high = bootstrap_interval(values, products, resamples=400, seed=7)
    means = oracle.bootstrap_means(values.tolist(), products.tolist(), 400, np.random.default_rng(7))
    assert low == pytest.approx(np.quantile(means, 0.025), abs=0.01)
    assert high == pytest.approx(np.quantile(means, 0.975), abs=0.01)
    assert low < values.mean() < high


def test_columns_share_their_resamples_and_seeds_fix_them(monkeypatch: pytest.MonkeyPatch) -> None:
    values, products = queries()
    both = bootstrap_interval(np.stack([values, 1 - values], axis=1), products, resamples=300)
    alone = bootstrap_interval(values, products, resamples=300)
    assert both[0].shape == both[1].shape == (2,)
    assert both[0][0] == alone[0]
    assert both[0][1] == pytest.approx(1 - alone[1])
    monkeypatch.setattr(bootstrap, "_MOST_DRAWS", 1)  # batches of one resample
    again = bootstrap_interval(values, products, resamples=300)
    assert again == alone
    assert bootstrap_interval(values, products, resamples=300, seed=1) != alone


def test_equal_values_and_a_single_product_give_the_mean() -> None:
    assert bootstrap_interval(np.ones(5), np.arange(5)) == (1.0, 1.0)
    assert bootstrap_interval(np.array([True, False]), np.array([4, 4])) == (0.5, 0.5)


@pytest.mark.parametrize(
    ("values", "products", "options", "says"),
    [
        (np.array([np.nan]), np.zeros(1), {}, "finite"),
        (np.zeros((2, 2, 2)), np.zeros(2), {}, r"\(Q,\) or \(Q, M\)"),
        (np.zeros(2), np.zeros(3), {}, "products must have one entry for each of the 2 rows of values, got 3"),
        (np.zeros(2), np.zeros(2), {"resamples": 0}, "resamples must be at least 1"),
        (np.zeros(2), np.zeros(2), {"level": 95}, "level must lie between 0 and 1, got 95"),
    ],
)
def test_bad_input(values: np.ndarray, products: np.ndarray, options: dict[str, int], says: str) -> None:
    with pytest.raises(BadInputError, match=says):
        bootstrap_interval(values, products, **options)  # type: ignore[arg-type]
