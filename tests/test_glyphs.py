"""The tool that builds the glyph data set, on tiny fonts made here."""

import io
import json
import random
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

pytest.importorskip("fontTools")
sys.path.insert(0, str(Path(__file__).parents[1] / "tools"))

from fontTools.fontBuilder import FontBuilder
from fontTools.pens.ttGlyphPen import TTGlyphPen

import build_glyphs
from glyph_drawing import SIDE_PX
from glyph_scripts import vertical_of
from univert.data.catalogue import Catalogue
from univert.data.splits import SPLITS

EM = 1000
Outline = list[tuple[int, int]]
BOX: Outline = [(50, 0), (50, 700), (450, 700), (450, 0)]


def shape(key: object, *, low: int = 100, high: int = 700) -> Outline:
    rng = random.Random(str(key))
    return [(rng.randrange(low, high), rng.randrange(low, high)) for _ in range(5)]


def write_font(path: Path, family: str, outlines: dict[str, Outline]) -> Path:
    """A font with a glyph a character; an empty outline is a blank glyph, `.notdef` is a box."""
    glyphs = {".notdef": BOX} | {f"uni{ord(character):04X}": points for character, points in outlines.items()}
    drawn = {}
    for name, points in glyphs.items():
        pen = TTGlyphPen(None)
        if points:
            pen.moveTo(points[0])
            for point in points[1:]:
                pen.lineTo(point)
            pen.closePath()
        drawn[name] = pen.glyph()
    builder = FontBuilder(EM, isTTF=True)
    builder.setupGlyphOrder(list(glyphs))
    builder.setupCharacterMap({ord(character): f"uni{ord(character):04X}" for character in outlines})
    builder.setupGlyf(drawn)
    builder.setupHorizontalMetrics(dict.fromkeys(glyphs, (800, 0)))
    builder.setupHorizontalHeader(ascent=800, descent=-200)
    builder.setupNameTable({"familyName": family, "styleName": "Regular"})
    builder.setupOS2(usWeightClass=400)
    builder.setupPost()
    path.parent.mkdir(parents=True, exist_ok=True)
    builder.save(path)
    return path


@pytest.mark.parametrize(
    ("characters", "vertical"),
    [
        ("A", "latin"),
        ("Ж", "cyrillic"),
        ("漢", "han"),
        ("→€", "symbols"),
        # fullwidth A, a ligature, a combining mark, box drawing, a digit (of all scripts), another script
        ("\uff21ﬁ\u0301─5א", None),
    ],
)
def test_characters_belong_to_the_vertical_of_their_script(characters: str, vertical: str | None) -> None:
    assert {vertical_of(character) for character in characters} == {vertical}


LATIN, GREEK = "ABCDEFGHIJ", "ΓΔΘΛΞΠΣΦΨΩ"


@pytest.fixture(scope="module")
def fonts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("fonts")
    for number in range(7):
        text = LATIN + GREEK if number < 6 else LATIN
        write_font(folder / f"{number}.ttf", f"Family {number}", {one: shape((one, number)) for one in text})
    return folder


def run_tool(fonts: Path, out: Path, *more: str) -> int:
    arguments = ["--fonts", str(fonts), "--out", str(out), "--scripts", "latin", "greek", *more]
    return build_glyphs.main([*arguments, *(() if "--processes" in more else ("--processes", "1"))])


def test_the_tool_builds_a_catalogue(fonts: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out, sheet = tmp_path / "glyphs.lance", tmp_path / "sheet.png"
    assert run_tool(fonts, out, "--fonts-per-product", "6", "--sheet", str(sheet)) == 0
    catalogue = Catalogue.open(out)
    assert catalogue.verticals == ["greek", "latin"]
    assert len(catalogue) == 6 * len(LATIN + GREEK)
    assert set(catalogue.column("product")) == {f"U+{ord(character):04X}" for character in LATIN + GREEK}
    assert set(catalogue.column("brand")) == {f"Family {number}" for number in range(7)}
    assert set(catalogue.column("style")) == {"Basic Latin", "Greek and Coptic"}
    assert set(catalogue.column("split")) <= set(SPLITS)
    for product in ("U+0041", "U+03A9"):
        own = np.flatnonzero(catalogue.column("product") == product)
        assert len(set(catalogue.column("split")[own])) == 1
        assert len(set(catalogue.image_bytes(own))) == 6
    with Image.open(io.BytesIO(catalogue.image_bytes([0])[0])) as image:
        assert image.size == (SIDE_PX, SIDE_PX)
    with Image.open(sheet) as image:
        assert image.width > 6 * SIDE_PX
    made = json.loads(out.with_suffix(".json").read_text())
    assert made["catalogue"] == catalogue.fingerprint
    assert made["verticals"][-1] == {"script": "all", "products": 20, "images": 120, "fonts": 7}
    assert "| latin | 10 | 60 | 7 |" in capsys.readouterr().out


def test_the_same_options_give_the_same_catalogue(fonts: Path, tmp_path: Path) -> None:
    prints = []
    for name, more in (("a", ()), ("b", ()), ("c", ("--seed", "1")), ("d", ("--products-limit", "5"))):
        assert run_tool(fonts, tmp_path / name, "--fonts-per-product", "5", *more) == 0
        prints.append(Catalogue.open(tmp_path / name).fingerprint)
    assert prints[0] == prints[1]
    assert len(set(prints)) == 3
