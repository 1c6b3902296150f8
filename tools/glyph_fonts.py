"""Fonts of the glyph data set: which packages they come from, which faces are used, which characters they have."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
from fontTools.ttLib import TTCollection, TTFont, TTLibError

from glyph_scripts import vertical_of

PACKAGES = {
    "latin": (
        "fonts-dejavu fonts-freefont-ttf fonts-liberation fonts-noto-core fonts-cmu fonts-ebgaramond fonts-junicode "
        "fonts-lato fonts-linuxlibertine fonts-mph-2b-damase fonts-oldstandard fonts-open-sans fonts-paratype "
        "fonts-roboto-unhinted fonts-sil-andika fonts-sil-charis fonts-sil-gentiumplus fonts-georgewilliams"
    ),
    "greek": "fonts-gfs-artemisia fonts-gfs-didot fonts-gfs-neohellenic",
    "cyrillic": "",  # those of Latin have it
    "arabic": (
        "fonts-hosny-amiri fonts-hosny-thabit fonts-arabeyes fonts-farsiweb fonts-kacst fonts-nafees fonts-paktype "
        "fonts-sil-alkalami fonts-sil-harmattan fonts-sil-lateef fonts-sil-scheherazade"
    ),
    "devanagari": (
        "fonts-lohit-deva fonts-aksharyogini2 fonts-deva-extra fonts-gargi fonts-nakula fonts-sahadeva "
        "fonts-samyak-deva fonts-sarai fonts-sil-annapurna"
    ),
    "hangul": (
        "fonts-nanum fonts-nanum-extra fonts-baekmuk fonts-unfonts-core fonts-unfonts-extra fonts-alee "
        "fonts-lexi-gulim fonts-lexi-saebom"
    ),
    "han": (
        "fonts-noto-cjk fonts-wqy-microhei fonts-wqy-zenhei fonts-arphic-ukai fonts-arphic-uming fonts-ipafont "
        "fonts-vlgothic fonts-droid-fallback fonts-babelstone-han fonts-cwtex-fs fonts-cwtex-kai fonts-cwtex-ming "
        "fonts-cwtex-yen fonts-hanazono fonts-lxgw-wenkai fonts-morisawa-bizud-gothic fonts-morisawa-bizud-mincho "
        "fonts-motoya-l-maruberi fonts-sawarabi-mincho fonts-seto fonts-smiley-sans"
    ),
    "symbols": "fonts-symbola fonts-oflb-asana-math fonts-opensymbol fonts-stix fonts-texgyre-math",
}
"""Debian packages by the script they were chosen for; most serve others as well."""

UNREADABLE_FAMILIES = (
    "Amiri Quran Colored",  # a colour font
    "BM ",  # pictures under rare syllables; one family is worn away on purpose
    "Haramain",  # every letter inside the same ornament
    "Linux Biolinum Keyboard",  # key caps
    "Linux Libertine Initials",  # letters before an ornament
    "Linux Libertine Mono",  # accents are missing
    "STIXIntegrals",  # from here on: parts and variants under the code points of whole characters
    "STIXNonUnicode",
    "STIXSize",
    "STIXVariants",
)
"""Families left out, by the beginning of their name."""

WRONG_DRAWINGS = {("Guseul", "han")}  # the Korean reading of each ideograph
"""(family, script) whose drawings show something other than the character."""

logging.getLogger("fontTools").setLevel(logging.CRITICAL)  # it mutters about odd dates and padding

_SUFFIXES = {".ttf", ".otf", ".ttc", ".otc"}
_UPRIGHT_STYLES = {"regular", "book", "roman", "medium", "normal"}


@dataclass(frozen=True, kw_only=True, order=True)
class Face:
    """One face of a font file.

    Attributes:
        family: the typographic family, the same for all weights and widths.
        path: the file.
        index: place of the face in a collection, 0 for a single font.
    """

    family: str
    path: Path
    index: int


def find_faces(folder: Path) -> list[Face]:
    """One face of each family under a folder, the one nearest to regular, upright and normal width, sorted.

    Links are not followed: they are other names of files found anyway. Files that are no fonts are passed over.
    """
    best: dict[str, tuple[tuple[float | bool | str, ...], Face]] = {}
    for path in sorted(folder.rglob("*")):
        if path.suffix.lower() not in _SUFFIXES or path.is_symlink() or not path.is_file():
            continue
        for face, plainness in _faces_of(path):
            if face.family.startswith(UNREADABLE_FAMILIES):
                continue
            if face.family not in best or plainness < best[face.family][0]:
                best[face.family] = (plainness, face)
    return sorted(face for _, face in best.values())


@dataclass(frozen=True, kw_only=True)
class CharacterMap:
    """What characters a face has.

    Attributes:
        codes: (N,) Unicode code points, ascending, of characters that are products.
        glyphs: (N,) the number of each one's glyph.
        outlines: where the glyphs are; faces of a collection often share them.
    """

    codes: npt.NDArray[np.int64]
    glyphs: npt.NDArray[np.int64]
    outlines: tuple[str, int]


def character_map(face: Face) -> CharacterMap:
    """The products that a face gives a glyph other than `.notdef`."""
    found: dict[int, int] = {}
    with face.path.open("rb") as file, TTFont(file, fontNumber=face.index, lazy=True) as font:
        tables = font.reader.tables
        offset = next((tables[tag].offset for tag in ("glyf", "CFF ", "CFF2") if tag in tables), -1)
        try:
            names = font.getBestCmap() or {}  # Unicode maps alone: symbol fonts have none
            number = font.getReverseGlyphMap()
            found = {code: number.get(name, 0) for code, name in names.items() if vertical_of(chr(code))}
        except (TTLibError, AssertionError, KeyError, IndexError):
            found = {}
    codes = np.array(sorted(code for code, glyph in found.items() if glyph), np.int64)
    glyphs = np.array([found[code] for code in codes.tolist()], np.int64)
    return CharacterMap(codes=codes, glyphs=glyphs, outlines=(str(face.path), offset))


def faces_by_code(maps: Sequence[CharacterMap]) -> dict[int, list[int]]:
    """For each code point the faces that have it, as places in `maps`.

    Of faces that draw it with the same glyph of the same outlines the first alone counts.
    """
    found: dict[int, list[int]] = {}
    seen: dict[tuple[str, int], set[tuple[int, int]]] = {}
    for face, one in enumerate(maps):
        known = seen.setdefault(one.outlines, set())
        for pair in zip(one.codes.tolist(), one.glyphs.tolist(), strict=True):
            if pair not in known:
                found.setdefault(pair[0], []).append(face)
                if one.outlines[1] >= 0:
                    known.add(pair)
    return found


def _faces_of(path: Path) -> Iterator[tuple[Face, tuple[float | bool | str, ...]]]:
    """The faces of a file, each with how far it is from a plain one (to be compared)."""
    with path.open("rb") as file:  # not by fontTools, which leaves broken files open
        try:
            collection = path.suffix.lower() in (".ttc", ".otc")
            count = len(TTCollection(file, lazy=True).fonts) if collection else 1
            for index in range(count):
                font = TTFont(file, fontNumber=index, lazy=True)
                family = font["name"].getBestFamilyName()
                style = (font["name"].getBestSubFamilyName() or "").lower()
                weight = font["OS/2"].usWeightClass if "OS/2" in font else 400
                width = font["OS/2"].usWidthClass if "OS/2" in font else 5
                if family:
                    odd = not set(style.split()) & _UPRIGHT_STYLES or "italic" in style
                    plainness = (odd, abs(weight - 400), abs(width - 5), len(style), str(path), index)
                    yield Face(family=family, path=path, index=index), plainness
        except (TTLibError, OSError, AssertionError, KeyError):
            return
