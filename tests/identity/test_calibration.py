import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from PIL import Image
from typer.testing import CliRunner

from tests.data.pictures import encoded
from tests.tables import table_text
from univert.cli import calibrating
from univert.cli.calibrating import calibration_table
from univert.cli.options import app
from univert.core.errors import BadInputError
from univert.data.build import build_catalogue
from univert.data.catalogue import Catalogue
from univert.data.rows import SourceRow
from univert.identity.calibration import FEEDBACK, KNOWN_PRODUCT, NEW_PRODUCT, NEW_VALUE, ask
from univert.identity.calibration_fit import (
    Questions,
    Sample,
    calibration_error,
    fit,
    fit_similarity,
    fit_threshold,
    measure,
)
from univert.identity.feedback import Feedback, append_feedback
from univert.identity.vote import FARTHEST, NO_VOTE, Calibration
from univert.models.embedder import Embedder
from univert.search.index import Index
from univert.search.indexing import index_catalogue
from univert.search.query import Hit

assert calibrating


def questions(rng: np.random.Generator, count: int, *, known: bool) -> Questions:
    """Neighbours of which the right ones are nearer than the others, if there are any: 60 values in all."""
    distances = np.sort(rng.uniform(0.3, 1.2, (count, 12)), axis=1)
    codes = rng.integers(0, 60, (count, 12))
    truth = rng.integers(0, 60, count)
    codes[codes == truth[:, None]] = NO_VOTE
    if known:
        distances[:, 0] = rng.uniform(0.0, 0.9, count)
        codes[:, 0] = truth
        order = distances.argsort(axis=1)
        distances, codes = (np.take_along_axis(array, order, axis=1) for array in (distances, codes))
    return Questions(distances=distances, codes=codes, truth=truth)


def sample(seed: int, count: int = 600, new_share: float = 0.3) -> Sample:
    rng = np.random.default_rng(seed)
    asked = {KNOWN_PRODUCT: questions(rng, count, known=True), NEW_PRODUCT: questions(rng, count, known=False)}
    return Sample.of(asked, {KNOWN_PRODUCT: 1 - new_share, NEW_PRODUCT: new_share})


def test_what_is_fitted_holds_on_other_questions() -> None:
    calibration = fit(sample(0), precision=0.9)
    figures = measure(sample(1), calibration)
    assert figures["precision"] > 0.87
    assert figures["coverage"] > 0.2
    assert figures["expected_calibration_error"] < 0.1
    new = figures["situations"][NEW_PRODUCT]
    assert new["right"] == 0
    assert new["coverage"] < 0.15 < figures["situations"][KNOWN_PRODUCT]["coverage"]
    strict = measure(sample(1), fit(sample(0), precision=0.95))
    assert 0 < strict["coverage"] < figures["coverage"]


def test_a_precision_out_of_reach_leaves_everything_unknown() -> None:
    nothing = sample(0, new_share=1.0)
    calibration = fit(nothing, precision=0.9)
    assert calibration.threshold is None
    figures = measure(nothing, calibration)
    assert (figures["coverage"], figures["precision"]) == (0.0, None)


def test_always_right_is_sure_and_known() -> None:
    truth = np.random.default_rng(0).integers(0, 2, 100)
    easy = Questions(distances=np.tile([0.1, 0.2], (100, 1)), codes=np.stack([truth, truth], axis=1), truth=truth)
    calibration = fit(Sample.of({KNOWN_PRODUCT: easy}, {KNOWN_PRODUCT: 1.0}), precision=0.9)
    assert 0.9 < calibration.threshold < 1


def test_similarity_is_the_share_of_neighbours_of_the_same_kind() -> None:
    rng = np.random.default_rng(0)
    distances = np.sort(rng.uniform(0, 2, (500, 8)), axis=1)
    truth = rng.integers(0, 5, 500)
    same = rng.uniform(size=distances.shape) < 1 / (1 + np.exp(-(3 - 4 * distances)))
    codes = np.where(same, truth[:, None], truth[:, None] + 1)
    codes[:, 3] = NO_VOTE  # without a label it says nothing
    asked = Questions(distances=distances, codes=codes, truth=truth)
    assert fit_similarity(Sample.of({KNOWN_PRODUCT: asked}, {KNOWN_PRODUCT: 1.0})) == pytest.approx((3, -4), abs=0.3)
    turned = Questions(distances=2 - distances, codes=codes, truth=truth)
    assert fit_similarity(Sample.of({KNOWN_PRODUCT: turned}, {KNOWN_PRODUCT: 1.0})) is None


def test_the_threshold_is_the_lowest_that_keeps_the_precision() -> None:
    sure = np.linspace(0.999, 0.5, 500)
    right = np.ones(500, bool)
    right[300:] = False
    weights = np.full(500, 1 / 500)
    found = fit_threshold(sure, right, weights, precision=0.8)
    named = sure >= found
    assert 0.8 <= right[named].mean() < 0.85
    assert fit_threshold(sure, ~right, weights, precision=0.8) is None
    # Fewer than thirty answers are no ground for a statement.
    assert fit_threshold(sure[:29], right[:29], weights[:29], precision=0.8) is None


def test_calibration_error_by_hand() -> None:
    weights = np.full(300, 1 / 300)
    sure = np.full(300, 0.8)
    right = np.tile([True] * 8 + [False] * 2, 30)
    assert calibration_error(sure, right, weights) == pytest.approx(0, abs=1e-9)
    assert calibration_error(np.full(300, 0.6), right, weights) == pytest.approx(0.2)


@pytest.fixture(scope="module")
def drawn_index(tmp_path_factory: pytest.TempPathFactory) -> Index:
    """Three images of each of twelve products, along a circle; every third product without a name."""
    path = tmp_path_factory.mktemp("index") / "index"
    angles = np.array([0.4 * product + 0.01 * copy for product in range(12) for copy in range(3)])
    names = [None if product % 3 == 2 else f"p{product}" for product in range(12) for _ in range(3)]
    table = pa.table(
        {
            "id": [f"{row:02d}" for row in range(36)],
            "vertical": ["bags" if row < 18 else "hats" for row in range(36)],
            "product": pa.array(names, pa.string()),
            "brand": pa.array([None] * 36, pa.string()),
        }
    )
    with Index.create(path, size=2, model_fingerprint="model") as writer:
        writer.upsert(np.stack([np.cos(angles), np.sin(angles)], axis=1), table)
        writer.publish()
    return Index.open(path)


def test_what_must_not_answer_does_not(drawn_index: Index, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("univert.identity.calibration.NEIGHBOURS", 5)
    queries = [drawn_index.row(f"{number:02d}") or {} for number in range(36)]
    vectors = drawn_index.vectors([query["id"] for query in queries])
    asked = ask(drawn_index, queries, vectors)
    product = asked["product"]
    assert set(product) == {KNOWN_PRODUCT, NEW_PRODUCT}
    assert len(product[KNOWN_PRODUCT]) == len(product[NEW_PRODUCT]) == 24
    own = product[KNOWN_PRODUCT].codes == product[KNOWN_PRODUCT].truth[:, None]
    assert own.sum(axis=1).tolist() == [2] * 24  # the other two images, and not itself
    assert not (product[NEW_PRODUCT].codes == product[NEW_PRODUCT].truth[:, None]).any()
    vertical = asked["vertical"]
    assert len(vertical[KNOWN_PRODUCT]) == len(vertical[NEW_VALUE]) == 36
    assert not (vertical[NEW_VALUE].codes == vertical[NEW_VALUE].truth[:, None]).any()
    assert (vertical[NEW_VALUE].codes != NO_VOTE).all()  # found by searching the other vertical
    assert (vertical[NEW_VALUE].distances < FARTHEST).all()
    assert all(len(part) == 0 for part in asked["brand"].values())


def photo(product: int, copy: int) -> bytes:
    """A product is a pattern, and a copy of it has another corner: near for a network with any weights."""
    blocks = np.random.default_rng(product).integers(0, 256, size=(4, 4, 3), dtype=np.uint8)
    image = Image.fromarray(blocks).resize((40, 40), Image.Resampling.NEAREST)
    image.putpixel((copy, 0), (0, 0, 0))
    return encoded(image)


@pytest.fixture(scope="module")
def shop(model: Embedder, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path, Path]:
    """A saved model, a catalogue with splits and its index."""
    folder = tmp_path_factory.mktemp("shop")
    rows = (
        SourceRow(
            origin="test",
            id=f"p{product}-{copy}",
            image=photo(product, copy),
            vertical=["bags", "shoes"][product % 2],
            product=f"product {product}",
            split=["train", "val", "test"][product % 3],
            style="round" if product % 4 else None,
        )
        for product in range(60)
        for copy in range(3)
    )
    catalogue = build_catalogue(rows, folder / "shop.lance")
    assert catalogue
    index_catalogue(model, Catalogue.open(folder / "shop.lance"), folder / "shop.index")
    return model.save_pretrained(folder / "model"), folder / "shop.lance", folder / "shop.index"


def run(*arguments: object) -> tuple[int, str, BaseException | None]:
    result = CliRunner().invoke(app, [str(argument) for argument in arguments])
    return result.exit_code, result.stdout, result.exception


def test_the_command_writes_a_calibration_beside_the_index(shop: tuple[Path, Path, Path], model: Embedder) -> None:
    folder, catalogue, index = shop
    status, said, _ = run(
        "calibrate", folder, index, catalogue, "--engine", "torch", "--precision", "0.8",
        "--precision", "product=0.9", "--json",
    )  # fmt: skip
    assert status == 0
    calibration = Calibration.load(index / "calibration.json")
    assert json.loads(said)["model_fingerprint"] == model.fingerprint == calibration.model_fingerprint
    assert set(calibration.attributes) == {"vertical", "product"}  # one style alone tells nothing apart
    assert calibration.attributes["product"].precision == 0.9
    assert calibration.attributes["vertical"].precision == 0.8
    similar, far = calibration.similarity(0.0), calibration.similarity(4.0)
    assert similar > 0.5 > far
    figures = calibration.report["attributes"]["product"]["test"]
    assert figures["situations"][KNOWN_PRODUCT]["right"] > 0.9  # copies differ in a corner alone
    assert figures["situations"][NEW_PRODUCT]["right"] == 0
    assert figures["situations"][NEW_PRODUCT]["coverage"] < figures["situations"][KNOWN_PRODUCT]["coverage"]
    text = table_text(calibration_table(calibration))
    assert "test split" in text
    assert "never" in text


def test_out_feedback_and_bad_options(shop: tuple[Path, Path, Path], model: Embedder, tmp_path: Path) -> None:
    folder, catalogue, index = shop
    out, verdicts = tmp_path / "mine.json", tmp_path / "said.jsonl"
    near = tuple(Hit(id=f"i{n}", distance=0.001, vertical="bags", product="product 0") for n in range(30))
    wrong = Feedback(
        same=False, item=near[0], named="product 0", neighbours=near, model_fingerprint=model.fingerprint, time=""
    )
    for _ in range(40):
        append_feedback(verdicts, wrong)
    status, said, _ = run(
        "calibrate", folder, index, catalogue, "--engine", "torch", "--out", out, "--feedback", verdicts
    )
    assert status == 0
    told = Calibration.load(out).report["attributes"]["product"]["val"]
    known, said_wrong = told["situations"][KNOWN_PRODUCT], told["situations"][FEEDBACK]
    assert (said_wrong["queries"], said_wrong["right"]) == (40, 0)
    weight = 1 + 40 / known["queries"]
    assert told["right"] == pytest.approx(0.8 * known["right"] / weight), "each photo counts as much as one of val"
    assert "What 24 neighbours tell" in said
    for option, value, says in (
        ("--precision", "x", "must be a number"),
        ("--precision", "colour=0.9", "no attribute"),
        ("--precision", "1.5", "between 0 and 1"),
        ("--new-value-share", "0.8", "below 1 together"),
        ("--new-product-share", "-0.1", "at least 0"),
    ):
        _, _, error = run("calibrate", folder, index, catalogue, "--engine", "torch", option, value)
        assert isinstance(error, BadInputError)
        assert says in str(error)


def test_a_catalogue_without_val_is_refused(
    model: Embedder, catalogue: Catalogue, index: Index, tmp_path: Path
) -> None:
    folder = model.save_pretrained(tmp_path / "model")
    _, _, error = run(
        "calibrate", folder, index.path, catalogue.path, "--engine", "torch", "--out", tmp_path / "c.json"
    )
    assert isinstance(error, BadInputError)
    assert "split val" in str(error)
    assert not (tmp_path / "c.json").exists()
