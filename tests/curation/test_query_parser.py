"""The query parser on a small shop of three verticals, and on queries as people type them."""

from __future__ import annotations

import itertools
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from univert.core.errors import BadInputError
from univert.curation import QueryParser, query_parser
from univert.curation.query_examples import Example
from univert.data.catalogue import Catalogue
from univert.data.names import ProductName

SHOP = {
    "seating": {"en": "chair,armchair,bar stool,garden bench,rocking chair,office chair,wooden stool,sofa,deck chair",
                "de": "Stuhl,Sessel,Barhocker,Gartenbank,Schaukelstuhl,Bürostuhl,Holzhocker,Sofa,Liegestuhl",
                "ja": "椅子,肘掛け椅子,バースツール,ベンチ,ロッキングチェア,事務椅子,木製スツール,ソファ,デッキチェア"},
    "lighting": {"en": "floor lamp,table lamp,chandelier,candle,wall light,ceiling lamp,street light,desk lamp,lantern",
                 "de": "Stehlampe,Tischlampe,Kronleuchter,Kerze,Wandleuchte,Deckenlampe,Laterne,Schreibtischlampe,"
                       "Gartenlaterne",
                 "ja": "フロアランプ,卓上ランプ,シャンデリア,ろうそく,壁掛け照明,天井照明,街灯,デスクランプ,提灯"},
    "clothing": {"en": "shirt,winter jacket,trousers,leather shoes,hat,gloves,summer dress,socks,wool sweater",
                 "de": "Hemd,Winterjacke,Hose,Lederschuhe,Hut,Handschuhe,Sommerkleid,Socken,Wollpullover",
                 "ja": "シャツ,冬の上着,ズボン,革靴,帽子,手袋,夏のドレス,靴下,セーター"},
}  # fmt: skip


def shop_names() -> list[ProductName]:
    return [
        ProductName(f"{vertical}-{number}-{copy}", name, language)
        for vertical, languages in SHOP.items()
        for language, names in languages.items()
        for number, name in enumerate(names.split(","))
        for copy in range(2)
    ]


VERTICALS = {name.product: name.product.partition("-")[0] for name in shop_names()}


@pytest.fixture(scope="module")
def parser() -> QueryParser:
    return QueryParser.from_names(shop_names(), VERTICALS, {"seating": ["settee"]}, brands=["acme"])


def verticals(parser: QueryParser, *queries: str, precision: float = 0.9) -> list[str | None]:
    return parser.parse(queries, precision)["vertical"].to_pylist()


@pytest.mark.parametrize(
    ("query", "vertical"),
    [
        ("blue armchair", "seating"), ("armchiar", "seating"), ("chairs", "seating"), ("gibt es nicht", None),
        ("Kronleuchter", "lighting"), ("table lamps", "lighting"), ("lamp table", "lighting"), ("革靴", "clothing"),
        ("leather shoes acme", "clothing"), ("weather tomorrow", None), ("python list comprehension", None),
        ("", None), ("!!!", None), ("12345", None), ("wetter morgen", None),
    ],
)  # fmt: skip
def test_queries_as_people_type_them(parser: QueryParser, query: str, vertical: str | None) -> None:
    (row,) = parser.parse([query], 0.9).to_pylist()
    assert row["vertical"] == vertical, row
    assert 0 <= row["confidence"] <= 1
    assert row["why"]


def test_a_row_says_what_was_read(parser: QueryParser) -> None:
    (row,) = parser.parse(["Acme red armchiar"], 0.9).to_pylist()
    assert (row["brand"], row["colour"], row["words"], row["language"]) == ("acme", "red", ["armchair"], "en")
    assert "'armchiar' read as 'armchair'" in row["why"]
    assert "of seating" in row["why"]


@settings(max_examples=15, deadline=None)
@given(query=st.sampled_from(SHOP["seating"]["en"].split(",")), upper=st.booleans(), spaces=st.integers(0, 3))
def test_case_and_spaces_change_nothing(parser: QueryParser, query: str, upper: bool, spaces: int) -> None:
    typed = " " * spaces + (query.upper() if upper else query)
    first, second = parser.parse([query, typed]).drop_columns("query").to_pylist()
    assert first == second


def test_the_order_of_words_does_not_change_the_vertical(parser: QueryParser) -> None:
    orders = [" ".join(order) for order in itertools.permutations(["red", "leather", "shoes"])]
    assert set(verticals(parser, *orders)) == {"clothing"}


def test_rows_keep_the_queries_order_and_a_repeated_query_its_row(parser: QueryParser) -> None:
    table = parser.parse(["chair", "hat", "chair"])
    assert table["query"].to_pylist() == ["chair", "hat", "chair"]
    assert table.slice(0, 1).to_pylist() == table.slice(2, 1).to_pylist()
    assert parser.parse([]).num_rows == 0


def test_products_are_left_out_one_by_one_even_where_they_are_called_alike() -> None:
    named = [Example("chair", "en", "seating", "name", f"chair-{number}") for number in range(10)]
    kept = [Example("settee", None, "seating", "tag")]
    other = [Example(text, None, "", "written") for text in ("weather", "news", "lottery", "horoscope", "traffic")]
    folds = query_parser.folds_of([*named, *named, *kept, *other])
    assert sorted(folds[:10]) == [0, 0, 1, 1, 2, 2, 3, 3, 4, 4]
    assert folds[:10] == folds[10:20]
    assert folds[20] == -1
    assert sorted(folds[21:]) == [0, 1, 2, 3, 4]


def test_more_precision_gives_fewer_verticals_and_confidence_is_the_same(parser: QueryParser) -> None:
    queries = [name.name for name in shop_names()] + ["stool under the window", "light lunch", "board games"]
    strict, loose = parser.parse(queries, 0.99), parser.parse(queries, 0.5)
    assert strict["confidence"] == loose["confidence"]
    assert strict["vertical"].null_count >= loose["vertical"].null_count
    given = {row["query"] for row in strict.to_pylist() if row["vertical"]}
    assert given <= {row["query"] for row in loose.to_pylist() if row["vertical"]}


def test_the_same_names_give_the_same_parser(parser: QueryParser) -> None:
    again = QueryParser.from_names(shop_names(), VERTICALS, {"seating": ["settee"]}, brands=["acme"])
    queries = ["settee", "red lamp", "glove", "news"]
    assert again.parse(queries).equals(parser.parse(queries))


def test_a_catalogue_gives_the_verticals(catalogue: Catalogue) -> None:
    columns = zip(catalogue.column("product").tolist(), catalogue.column("vertical").tolist(), strict=True)
    names = [ProductName(product, f"{vertical} {product}", "en") for product, vertical in columns if product]
    parser = QueryParser.from_names(names, catalogue)
    assert set(parser.verticals) == {name.name.partition(" ")[0] for name in names}


def test_a_query_of_a_taxonomys_words_alone_has_its_vertical() -> None:
    parser = QueryParser.from_names(shop_names(), VERTICALS, {"lighting": ["zorblight", "night glow"]})
    rows = parser.parse(["Zorblight", "red night glow", "zorblight weather"], precision=0.99).to_pylist()
    assert [row["vertical"] for row in rows[:2]] == ["lighting", "lighting"]
    assert (rows[0]["confidence"], rows[0]["why"]) == (1.0, "the taxonomy has 'zorblight'")
    assert rows[2]["confidence"] < 1


@pytest.mark.parametrize(
    ("taxonomy", "message"),
    [
        ({"seting": ["settee"]}, "no vertical 'seting'; did you mean 'seating'"),
        ({"seating": "settee"}, "must be a list of words"),
        ({"seating": [1]}, "must be a list of words"),
        ("missing.toml", "not a readable TOML file"),
    ],
)
def test_a_bad_taxonomy_is_refused(taxonomy: object, message: str) -> None:
    with pytest.raises(BadInputError, match=message):
        QueryParser.from_names(shop_names(), VERTICALS, taxonomy)  # type: ignore[arg-type]


def test_other_bad_input_is_refused(parser: QueryParser, tmp_path: Path) -> None:
    with pytest.raises(BadInputError, match="0 verticals with at least two"):
        QueryParser.from_names(shop_names(), {"x": "hats"})
    with pytest.raises(BadInputError, match="query 1 is None"):
        parser.parse(["chair", None])  # type: ignore[list-item]
    with pytest.raises(BadInputError, match="precision must be above 0"):
        parser.parse(["chair"], precision=95)
    on_topic = [Example(text, "en", text, "name", str(number)) for text in ("chair", "lamp") for number in range(9)]
    with pytest.raises(BadInputError, match=r"it takes some of \['', 'chair', 'lamp'\]; .* `off_topic_examples`"):
        QueryParser(on_topic)


def test_two_names_in_each_of_two_verticals_are_enough() -> None:
    shelf = {"spoon": "kitchen", "fork": "kitchen", "piano": "music", "violin": "music", "!": "music"}
    parser = QueryParser.from_names([ProductName(name, name) for name in shelf], shelf)
    assert parser.verticals == ["kitchen", "music"]
    assert parser.parse(["fork", "weather tomorrow"], 0.5)["vertical"].to_pylist()[1] is None
