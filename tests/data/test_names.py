import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from univert.core.errors import BadInputError
from univert.data.names import ProductName, read_names
from univert.data.sample import NAMES_PATH, SAMPLE_PATHS

ROWS = [
    {"product": "7", "name": "Oak chair", "language": "en", "tags": ["seat", "wood"]},
    {"product": "7", "name": "Chaise en chêne", "language": "fr", "tags": None},
]
WANTED = [ProductName("7", "Oak chair", "en", ("seat", "wood")), ProductName("7", "Chaise en chêne", "fr")]


def write(path: Path) -> Path:
    if path.suffix == ".parquet":
        pq.write_table(pa.Table.from_pylist(ROWS), path)
    elif path.suffix == ".jsonl":
        path.write_text("\n".join(map(json.dumps, ROWS)))
    else:
        path.write_text('Product,Name,Language,Tags\n7,Oak chair,en,"seat, wood,"\n7,Chaise en chêne,fr,\n7,,de,\n')
    return path


@pytest.mark.parametrize("suffix", [".parquet", ".jsonl", ".csv"])
def test_a_names_table_is_read_from_any_kind_of_file(suffix: str, tmp_path: Path) -> None:
    assert list(read_names(write(tmp_path / f"names{suffix}"))) == WANTED


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("product,nmae\n1,Chair\n", "no column 'name'; is it 'nmae'?"),
        ("name\nChair\n", "no column 'product'"),
        ("product,name\n,Chair\n", "names.csv:2: 'Chair' has no product"),
        ("product,name\n1,Chair,x\n", "3 fields"),
        (None, "no such file"),
    ],
)
def test_what_is_wrong_is_said(text: str | None, message: str, tmp_path: Path) -> None:
    path = tmp_path / "names.csv"
    if text is not None:
        path.write_text(text)
    with pytest.raises(BadInputError, match=message.replace("?", r"\?")):
        list(read_names(path))


def test_the_sample_s_names_fit_its_products() -> None:
    names = list(read_names(NAMES_PATH))
    products = set(pq.read_table(SAMPLE_PATHS[0], columns=["product"])["product"].to_pylist())
    assert {name.product for name in names} == products
    assert {name.product for name in names if name.language == "en"} == products
    languages = {name.language for name in names}
    assert len(languages) == 21
    assert len({(name.product, name.language) for name in names}) == len(names)
    assert NAMES_PATH.stat().st_size < 1_000_000
