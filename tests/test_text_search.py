"""Search by words: what is learned and kept with an index, and what words find, by command and by service."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from tests.conftest import Univert
from tests.curation.words import encode, named_pictures
from tests.serving.served import Client, client, model_folder
from tests.small_shop import catalogue, index, model, picture
from univert.core.errors import BadInputError
from univert.data.catalogue import Catalogue
from univert.data.names import ProductName
from univert.search.index import Index
from univert.text_search import TextSearch, text_search_folder

__all__ = ["catalogue", "client", "index", "model", "model_folder"]

NAMED = named_pictures()
NAMES = [ProductName(product, texts[0], "en", ("furniture",)) for product, texts in NAMED.texts.items()]
FRENCH = [ProductName("red-sofa", "canapé rouge", "fr"), ProductName("red-lamp", "lampe rouge", "fr")]
FINGERPRINT = "made up"


@pytest.fixture
def furniture(tmp_path: Path) -> Index:
    """Four pictures of each of 24 products."""
    path = tmp_path / "furniture.index"
    ids = [f"{product} {row}" for row, product in enumerate(NAMED.products)]
    columns = {"id": ids, "vertical": list(NAMED.verticals), "product": list(NAMED.products)}
    with Index.create(path, size=16, model_fingerprint=FINGERPRINT) as writer:
        writer.upsert(NAMED.vectors, pa.table(columns))
        writer.publish()
    return Index.open(path)


def test_words_find_products_by_their_names_in_all_languages(furniture: Index) -> None:
    texts = TextSearch.learn(furniture, [*NAMES, *FRENCH], encoder=encode)
    for typed in ("red sofa", "canapé rouge", "canape"):
        answer = texts.search(furniture, typed, 4)
        assert {hit.product for hit in answer.hits} == {"red-sofa"}
        assert (answer.query.unknown, answer.query.told()) == ((), None)
    distances = [hit.distance for hit in texts.search(furniture, "red sofa", 96).hits]
    assert distances == sorted(distances)
    assert 0 <= distances[0] < distances[-1] <= 4


def test_a_distance_is_two_less_both_cosines(furniture: Index) -> None:
    texts = TextSearch.learn(furniture, NAMES, encoder=encode)
    found = {hit.id: hit.distance for hit in texts.search(furniture, "black chairs", 96).hits}
    vector, typed = texts.tower.embed(["black chairs"])[0], encode(["black chairs"])[0]
    for row, product in enumerate(NAMED.products):
        name = product.replace("-", " ")
        by_name = (encode([name, "furniture", f"{name} furniture"]) @ typed).max()
        wanted = 2 - by_name - NAMED.vectors[row] @ vector
        assert found[f"{product} {row}"] == pytest.approx(wanted, abs=1e-3)


def test_products_without_a_name_are_found_by_their_pictures(furniture: Index) -> None:
    unnamed = {"red-lamp", "blue-sofa", "green-table", "black-chair"}
    texts = TextSearch.learn(furniture, [name for name in NAMES if name.product not in unnamed], encoder=encode)
    places = []
    for product in sorted(unnamed):
        found = texts.search(furniture, product.replace("-", " "), 96).hits
        places.append(list(dict.fromkeys(hit.product for hit in found)).index(product))
    assert np.mean(places) < 6  # of 24; by chance 11.5


def test_words_steer_a_photo(furniture: Index) -> None:
    texts = TextSearch.learn(furniture, NAMES, encoder=encode)
    photo = NAMED.vectors[list(NAMED.products).index("red-sofa")]
    typed = "blue"
    together = texts.search(furniture, typed, 96, photo=photo).hits
    assert together[0].product == "blue-sofa"
    words = {hit.id: hit.distance for hit in texts.search(furniture, typed, 96).hits}
    for hit, vector in zip(together, furniture.vectors([hit.id for hit in together]), strict=True):
        wanted = (words[hit.id] + np.square(vector - photo).sum()) / 2
        assert hit.distance == pytest.approx(wanted, abs=1e-3)


def test_it_is_told_what_is_not_known_and_what_was_replaced(furniture: Index) -> None:
    texts = TextSearch.learn(furniture, [*NAMES, *FRENCH], encoder=encode)

    def read(typed: str) -> tuple[str, tuple[str, ...], int]:
        query = texts.search(furniture, typed, 1).query
        return query.words, query.unknown, query.known

    assert read("a red chair with xyzzy") == ("a red chair with xyzzy", ("xyzzy",), 2)
    assert read("weisse chiar") == ("white chair", (), 2), "a colour in German, and a typo"
    assert read("стол") == ("стол", ("стол",), 0)
    assert texts.search(furniture, "стол", 1).query.told() == (
        "not known here: 'стол'; no word is known, so the answer goes by meaning alone"
    )


def test_filters_narrow_the_answer(furniture: Index) -> None:
    texts = TextSearch.learn(furniture, NAMES, encoder=encode)
    found = texts.search(furniture, "red sofa", 96, where={"vertical": "lamp"}).hits
    assert (len(found), {hit.vertical for hit in found}) == (24, {"lamp"})
    found = texts.search(furniture, "red sofa", 96, where={"product": ["blue-lamp", "red-lamp"]}).hits
    assert {hit.product for hit in found} == {"blue-lamp", "red-lamp"}
    with pytest.raises(BadInputError, match="vertical"):
        texts.search(furniture, "red sofa", where={"vertical": "lmap"})


def test_what_is_kept_answers_the_same_also_of_a_newer_version(furniture: Index) -> None:
    learned = TextSearch.learn(furniture, NAMES, encoder=encode)
    learned.save(furniture.uri)
    first = [hit.id for hit in learned.search(furniture, "red sofa", 8).hits]
    assert [hit.id for hit in TextSearch.load(furniture, encoder=encode).search(furniture, "red sofa", 8).hits] == first
    with Index.writer(furniture.path) as writer:
        writer.upsert(furniture.vectors([first[0]]), pa.table({"id": ["new"], "vertical": ["sofa"]}))
        writer.publish()
    newer = Index.open(furniture.path)
    assert "new" in {hit.id for hit in TextSearch.load(newer, encoder=encode).search(newer, "red sofa", 30).hits}


def test_what_cannot_be_loaded_says_how_to_make_it(furniture: Index) -> None:
    with pytest.raises(BadInputError, match=r"knows no words; .* run univert index MODEL CATALOGUE .* --names NAMES"):
        TextSearch.load(furniture, encoder=encode)
    TextSearch.learn(furniture, NAMES, encoder=encode).save(furniture.uri)
    with Index.writer(furniture.path) as writer:
        writer.start_over(size=16, model_fingerprint="another")
        writer.upsert(NAMED.vectors[:1], pa.table({"id": ["one"], "vertical": ["sofa"]}))
        writer.finish_rebuilding()
        writer.publish()
    with pytest.raises(BadInputError, match="words of another model"):
        TextSearch.load(Index.open(furniture.path), encoder=encode)
    (text_search_folder(furniture.uri) / "texts.npy").write_bytes(b"\x93NUMPY")
    with pytest.raises(BadInputError, match="damaged"):
        TextSearch.load(furniture, encoder=encode)
    for names in ([], [ProductName("nobody", "nothing")]):
        with pytest.raises(BadInputError, match=rf"none of the {len(names)} names belongs to a product"):
            TextSearch.learn(furniture, names)
    with pytest.raises(BadInputError, match="kept in a folder only"):
        text_search_folder("s3://shop/index")


NAMES_TABLE = "product,name,language,tags\n" + "".join(
    f'product {number},{name},en,"{tag}"\n'
    for number, (name, tag) in enumerate([("Oak bookcase", "shelf"), ("", ""), ("", ""), ("Red armchair", "seat")] * 3)
    if name
)


def test_by_command_and_by_service(
    model_folder: Path, index: Index, catalogue: Catalogue, client: Client, tmp_path: Path, univert: Univert
) -> None:
    path, names = tmp_path / "shop.index", tmp_path / "names.csv"
    shutil.copytree(index.path, path)
    names.write_text(NAMES_TABLE)
    search = ("search", model_folder, path, "--text")
    status, _, err = univert(*search, "armchair")
    assert (status, "knows no words" in err) == (2, True)
    served = client(index=str(path))
    assert served.get("/verticals").json()["text"] is False

    def ask(**fields: str) -> tuple[int, dict[str, object]]:
        answer = served.post("/search", data=fields, files={"k": (None, "3")})
        return answer.status_code, answer.json()

    status, problem = ask(text="armchair")
    assert (status, problem["type"]) == (400, "/problems/no-words")
    assert "--names NAMES" in str(problem["detail"])

    empty = tmp_path / "empty.csv"
    empty.write_text("product,name\n")
    status, _, err = univert("index", model_folder, catalogue.path, tmp_path / "new.index", "--names", empty)
    assert (status, "empty.csv has no names" in err, (tmp_path / "new.index").exists()) == (2, True, False)
    status, out, _ = univert("index", model_folder, catalogue.path, path, "--names", names)
    assert status == 0
    assert "searched by words, too, with 6 names" in out
    status, out, err = univert(*search, "armchiar xyzzy", "--json", "--out", tmp_path / "found.html", "--k", 3)
    assert (status, err) == (0, "univert: searched for: 'armchair xyzzy'; not known here: 'xyzzy'\n")
    shown = json.loads(out)
    assert (shown["words"], shown["unknown"], shown["known"], len(shown["hits"])) == ("armchair xyzzy", ["xyzzy"], 1, 3)
    assert shown["hits"][0]["product"] in {"product 3", "product 7", "product 11"}
    page = (tmp_path / "found.html").read_text()
    assert "not known here: &#39;xyzzy&#39;" in page
    assert '<h1 title="armchiar xyzzy"' in page
    assert univert(*search, "armchair", "--vertical", "bags")[0] == 0

    assert served.get("/verticals").json()["text"] is True
    status, answer = ask(text=" armchiar xyzzy ")
    assert status == 200
    assert answer["query"] == {
        **dict.fromkeys(("width_px", "height_px", "box_xyxy_px", "like")),
        **{name: shown[name] for name in ("words", "unknown", "known")},
        "text": "armchiar xyzzy",
    }
    assert [hit["id"] for hit in answer["hits"]] == [hit["id"] for hit in shown["hits"]]  # type: ignore[attr-defined]
    assert answer["identity"] is None
    answer = served.post("/search", data={"text": "armchair", "k": "3"}, files={"photo": picture(4, 1)}).json()
    assert (answer["query"]["width_px"], answer["query"]["text"], answer["items"]) == (48, "armchair", [])
    found = tmp_path / "photo.png"
    found.write_bytes(picture(4, 1))
    status, out, _ = univert("search", model_folder, path, found, "--text", "armchair", "--json", "--k", 3)
    assert [hit["id"] for hit in json.loads(out)["hits"]] == [hit["id"] for hit in answer["hits"]]
    names.write_text(NAMES_TABLE.replace("Red armchair", "Zebra"))
    assert univert("index", model_folder, catalogue.path, path, "--names", names)[0] == 0
    assert ask(text="armchair zebra")[1]["query"]["unknown"] == ["armchair"], "new names are taken up"  # type: ignore[index]


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"text": "lamp", "like": "p4-1"}, "give either text or like, not both"),
        ({"text": "lamp", "box": "0,0,9,9"}, "box belongs to a photo; leave it out without one"),
        ({"text": "x" * 201}, "text: must have at most 200 characters, got 201"),
        ({"text": "?!"}, "text: must have a word in it"),
    ],
)
def test_a_form_with_words_is_checked(client: Client, fields: dict[str, str], message: str) -> None:
    answer = client().post("/search", data=fields, files={"k": (None, "3")})
    assert (answer.status_code, answer.json()["detail"]) == (422, message)


@pytest.mark.parametrize(
    ("options", "message"),
    [((), "give a photo, or words as --text"), (("--text", "lamp", "--detector", "d"), "leave it out with --text")],
)
def test_the_command_wants_a_photo_or_words(
    model_folder: Path, index: Index, univert: Univert, options: tuple[str, ...], message: str
) -> None:
    status, _, err = univert("search", model_folder, index.path, *options)
    assert (status, message in err) == (2, True), err


def test_serving_imports_no_pytorch_before_words_come() -> None:
    code = "import sys, univert.serving.app, univert.text_search; print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"
