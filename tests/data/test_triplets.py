import csv
import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from univert.core.config import to_plain
from univert.core.errors import BadInputError
from univert.data.catalogue import Catalogue
from univert.data.triplets import ROLES, TripletProblemsError, read_clean_triplets

Rows = Sequence[Sequence[str | None]]

# products 0, 4 and 8 of a vertical are labelled training products, 1, 5 and 9 training products of which 1 and 9
# have lost their names; 2, 6, 10 are val, 3, 7, 11 test
GOOD = [
    ("discs-0-0", "discs-0-1", "discs-4-0"),
    ("discs-0-1", "discs-0-0", "discs-4-0"),
    ("squares-5-0", "squares-5-2", "squares-8-1"),
    ("discs-1-0", "discs-1-1", "discs-0-0"),
    ("discs-4-0", "discs-4-1", "discs-1-0"),
]


def write(path: Path, rows: Rows) -> Path:
    """The rows in the format that the suffix asks for."""
    if path.suffix == ".parquet":
        pq.write_table(pa.table({role: [row[i] for row in rows] for i, role in enumerate(ROLES)}), path)
    elif path.suffix == ".jsonl":
        path.write_text("".join(json.dumps(dict(zip(ROLES, row, strict=True))) + "\n" for row in rows))
    else:
        with path.open("w", newline="") as file:
            csv.writer(file).writerows([ROLES, *rows])
    return path


def problems_of(rows: Rows, catalogue: Catalogue, folder: Path) -> dict[str, int]:
    with pytest.raises(TripletProblemsError) as error:
        read_clean_triplets(write(folder / "t.csv", [*GOOD[:1], *rows]), catalogue)
    return error.value.report.problems


@pytest.mark.parametrize("suffix", ["csv", "jsonl", "parquet"])
def test_all_formats_give_the_same_positions(suffix: str, catalogue: Catalogue, tmp_path: Path) -> None:
    clean = read_clean_triplets(write(tmp_path / f"t.{suffix}", GOOD), catalogue)
    ids = catalogue.column("id")
    table = np.stack([clean.anchors, clean.positives, clean.negatives], axis=1)
    found = [tuple(ids[row]) for row in table]
    assert found == GOOD
    assert (len(clean), clean.report.rows, clean.report.used, clean.report.rejected) == (5, 5, 5, 0)
    assert clean.report.unlabelled == 2
    assert clean.report.verticals == {"discs": 4, "squares": 1}
    json.dumps(to_plain(clean.report))


@pytest.mark.parametrize(
    ("row", "kind"),
    [
        (("discs-0-0", "", "discs-4-0"), "missing id"),
        (("discs-0-0", "nobody", "discs-4-0"), "unknown id"),
        (("discs-0-0", "discs-0-0", "discs-4-0"), "one image twice"),
        (("discs-2-0", "discs-2-1", "discs-6-0"), "image of the val split"),
        (("discs-0-0", "discs-0-2", "discs-3-0"), "image of the test split"),
        (("discs-0-0", "discs-4-0", "discs-8-0"), "positive of another product"),
        (("discs-0-0", "squares-9-0", "discs-8-0"), "positive of another vertical"),
        (("discs-0-0", "squares-0-0", "discs-8-0"), "positive of another vertical"),
        (("discs-0-0", "discs-0-1", "squares-0-0"), "negative of another vertical"),
        (("discs-0-0", "discs-0-1", "discs-0-2"), "negative of the same product"),
        (("discs-1-0", "discs-0-1", "discs-0-2"), "negative of the same product"),
        (GOOD[0], "duplicate"),
        (("a", "b", "c", "d"), "bad line"),
    ],
)
def test_each_kind_is_counted(row: Sequence[str], kind: str, catalogue: Catalogue, tmp_path: Path) -> None:
    found = problems_of([row], catalogue, tmp_path)
    assert kind in found
    assert len(found) == 1


def test_the_error_counts_all_and_names_the_first_of_each_kind(catalogue: Catalogue, tmp_path: Path) -> None:
    unknown = [(f"x{i}", "discs-0-1", "discs-4-0") for i in range(5)]
    path = write(tmp_path / "t.csv", [*GOOD, *unknown, ("discs-0", "discs-0-1", "discs-2-0")])
    with pytest.raises(TripletProblemsError) as error:
        read_clean_triplets(path, catalogue)
    text = str(error.value)
    for words in ("5 of 11 triplets can be used", "6 x unknown id", "t.csv:7: anchor 'x0'", "--on-bad skip"):
        assert words in text, words
    assert "x3" not in text
    assert isinstance(error.value, BadInputError)


def test_skip_leaves_out_and_lists(catalogue: Catalogue, tmp_path: Path) -> None:
    path = write(tmp_path / "t.parquet", [*GOOD, ("discs-0", "discs-2-1", None)])
    listed = tmp_path / "rejected.csv"
    clean = read_clean_triplets(path, catalogue, on_bad="skip", rejected_csv=listed)
    assert (clean.report.used, clean.report.rejected) == (5, 1)
    assert clean.report.problems == {"unknown id": 1, "missing id": 1}
    assert "that is a product" in clean.report.summary()
    rows = list(csv.reader(listed.read_text().splitlines()))
    assert [row[0] for row in rows[1:]] == [f"{path}:row 6"] * 2


def naive(row: Sequence[int], products: list[str | None], verticals: list[str], splits: list[str]) -> bool:
    """Whether a triplet can be used, by its words in the documentation."""
    a, p, n = row
    return (
        len({a, p, n}) == 3
        and all(splits[i] == "train" for i in row)
        and verticals[a] == verticals[p] == verticals[n]
        and (products[a] is None or products[p] is None or products[a] == products[p])
        and (products[n] is None or products[n] not in (products[a], products[p]))
    )


@given(data=st.data())
def test_any_single_triplet_is_judged_as_the_words_say(
    data: st.DataObject, catalogue: Catalogue, tmp_path_factory: pytest.TempPathFactory
) -> None:
    row = data.draw(st.lists(st.integers(0, len(catalogue) - 1), min_size=3, max_size=3))
    ids = catalogue.column("id")
    path = write(tmp_path_factory.mktemp("t") / "t.jsonl", [[str(ids[i]) for i in row]])
    try:
        good = bool(len(read_clean_triplets(path, catalogue)))
    except TripletProblemsError:
        good = False
    columns = [catalogue.column(name).tolist() for name in ("product", "vertical", "split")]
    assert good == naive(row, *columns)


@pytest.mark.parametrize(
    ("second", "contradicts"),
    [
        (("{u}", "discs-4-1", "discs-8-0"), True),  # another product than before
        (("{u}", "discs-0-1", "discs-8-0"), False),
        (("discs-0-1", "discs-0-2", "{u}"), True),  # not the product it was
        (("discs-4-1", "discs-4-2", "{u}"), False),
    ],
)
def test_an_unlabelled_image_has_one_product(
    second: tuple[str, ...], contradicts: bool, catalogue: Catalogue, tmp_path: Path
) -> None:
    products, ids = catalogue.column("product"), catalogue.column("id")
    chosen = (catalogue.column("vertical") == "discs") & (catalogue.column("split") == "train")
    unlabelled = next(name for name, product in zip(ids[chosen], products[chosen], strict=True) if product is None)
    rows = [(unlabelled, "discs-0-0", "discs-4-1"), tuple(name.format(u=unlabelled) for name in second)]
    path = write(tmp_path / "t.csv", rows)  # type: ignore[arg-type]
    if contradicts:
        with pytest.raises(TripletProblemsError) as error:
            read_clean_triplets(path, catalogue)
        assert error.value.report.problems == {"contradiction": 1}
    else:
        assert read_clean_triplets(path, catalogue).report.used == 2


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("t.csv", "anchor,positiv,negative\n", "is it 'positiv'"),
        ("t.csv", "anchor,anchor,positive,negative\n", "more than one column 'anchor'"),
        ("t.jsonl", '{"anchors": "x"}\n', "is it 'anchors'"),
        ("t.csv", "anchor,positive,negative\n", "0 of 0 triplets"),
    ],
)
def test_files_that_cannot_be_used(name: str, text: str, message: str, catalogue: Catalogue, tmp_path: Path) -> None:
    (tmp_path / name).write_text(text)
    with pytest.raises(BadInputError, match=message):
        read_clean_triplets(tmp_path / name, catalogue)
    with pytest.raises(BadInputError, match="no such file"):
        read_clean_triplets(tmp_path / "none.csv", catalogue)
    with pytest.raises(BadInputError, match="on_bad must be"):
        read_clean_triplets(tmp_path / name, catalogue, on_bad="warn")
