"""Which picture of which artist shows which emoji: the joins behind the emoji catalogue.

The emoji and their CLDR short names come from `unicode-emoji-json`. Noto, Twemoji and Fluent name their files by
code points, which join exactly. The two Iconify sets name their icons by an older CLDR short name, so they join
by that name, then by the renames listed here.
"""

from __future__ import annotations

import json
import re
import unicodedata
from dataclasses import dataclass
from pathlib import Path
from typing import Any

PACKAGES = {
    "unicode-emoji-json": "0.8.0",
    "emoji-datasource-google": "16.0.0",
    "emoji-datasource-twitter": "16.0.0",
    "@lobehub/fluent-emoji-3d": "1.1.0",
    "@iconify-json/noto-v1": "1.2.5",
    "@iconify-json/emojione": "1.2.3",
}
ARTISTS = {
    "noto": "emoji-datasource-google",
    "twemoji": "emoji-datasource-twitter",
    "fluent-3d": "@lobehub/fluent-emoji-3d",
    "noto-v1": "@iconify-json/noto-v1",
    "emojione-2": "@iconify-json/emojione",
}
"""Artist to the npm package that carries the artist's pictures."""

VERTICALS = {
    "Smileys & Emotion": "smileys",
    "People & Body": "people",
    "Animals & Nature": "animals-nature",
    "Food & Drink": "food-drink",
    "Travel & Places": "travel-places",
    "Activities": "activities",
    "Objects": "objects",
    "Symbols": "symbols",
    "Flags": "flags",
}

NOT_MICROSOFTS = {"country-flag", "subdivision-flag", "family"}
"""Styles, and the product `family`, that are not in Microsoft's MIT release; the package got them elsewhere."""

WRONG_PICTURES = {
    ("noto", "flag-sark"),  # the package shows Saudi Arabia's flag
    ("noto-v1", "face-with-crossed-out-eyes"),  # older than the name: its eyes are spirals
}
"""Pictures that do not show what their emoji is today; the revolvers of the older `pistol` are not joined at all."""

RENAMED = {
    "bullseye": "direct-hit",
    "enraged-face": "pouting-face",
    "face-with-crossed-out-eyes": "dizzy-face",
    "keycap-hash": "keycap-pound",
    "red-exclamation-mark": "exclamation-mark",
    "red-question-mark": "question-mark",
    "smiling-face-with-open-hands": "hugging-face",
    "a-button-blood-type": "a-button",
    "ab-button-blood-type": "ab-button",
    "b-button-blood-type": "b-button",
    "o-button-blood-type": "o-button",
    "cat-with-tears-of-joy": "cat-face-with-tears-of-joy",
    "cat-with-wry-smile": "cat-face-with-wry-smile",
    "crying-cat": "crying-cat-face",
    "grinning-cat": "grinning-cat-face",
    "grinning-cat-with-smiling-eyes": "grinning-cat-face-with-smiling-eyes",
    "kissing-cat": "kissing-cat-face",
    "pouting-cat": "pouting-cat-face",
    "smiling-cat-with-heart-eyes": "smiling-cat-face-with-heart-eyes",
    "weary-cat": "weary-cat-face",
    "heart-exclamation": "heavy-heart-exclamation",
    "robot": "robot-face",
    "men-holding-hands": "two-men-holding-hands",
    "women-holding-hands": "two-women-holding-hands",
    "woman-and-man-holding-hands": "man-and-woman-holding-hands",
    "person-in-suit-levitating": "man-in-suit-levitating",
    "person-with-skullcap": "man-with-chinese-cap",
    "person-with-veil": "bride-with-veil",
    "black-flag": "flag-for-black-flag",
    "chequered-flag": "flag-for-chequered-flag",
    "crossed-flags": "flag-for-crossed-flags",
    "rainbow-flag": "flag-for-rainbow-flag",
    "triangular-flag": "flag-for-triangular-flag",
    "white-flag": "flag-for-white-flag",
    "flag-cocos-keeling-islands": "flag-for-cocos-islands",
    "flag-eswatini": "flag-for-swaziland",
    "flag-macao-sar-china": "flag-for-macau-sar-china",
    "flag-myanmar-burma": "flag-for-myanmar",
    "flag-north-macedonia": "flag-for-macedonia",
    "flag-turkiye": "flag-for-turkey",
    "flag-u-s-outlying-islands": "flag-for-us-outlying-islands",
    "flag-u-s-virgin-islands": "flag-for-us-virgin-islands",
}
"""Today's short name to the one an Iconify set may still use."""

WRONG_ALIASES = {"cricket", "up-button"}
"""Aliases of the Iconify sets that lead to another emoji: the bat and ball, the upwards arrow."""

_HAIR = {"1f9b0", "1f9b1", "1f9b2", "1f9b3", "1f471"}
"""Red, curly, bald and white hair as components, and the emoji that is a person with blond hair."""


@dataclass(frozen=True, kw_only=True)
class Emoji:
    """One emoji, which is one product.

    Attributes:
        product: slug of the CLDR short name, unique over all verticals.
        codes: its code points in hex without the variation selector, joined by `-`.
        vertical: the vertical of its Unicode group.
        style: its Unicode subgroup.
    """

    product: str
    codes: str
    vertical: str
    style: str


def read_emoji(packages: Path) -> list[Emoji]:
    """All emoji but the skin-tone and hair variants and the components, in Unicode's order.

    Args:
        packages: the `node_modules` folder.
    """
    named = _read_json(packages / "unicode-emoji-json" / "data-by-emoji.json")
    datasource = _read_json(packages / "emoji-datasource-google" / "emoji.json")
    styles = {_codes(entry["unified"].split("-")): entry["subcategory"] for entry in datasource}
    found: list[Emoji] = []
    for text, entry in named.items():
        codes = _codes(f"{ord(character):x}" for character in text)
        if entry["group"] not in VERTICALS or not _HAIR.isdisjoint(codes.split("-")):
            continue
        style = slug(styles[codes])
        found.append(Emoji(product=slug(entry["name"]), codes=codes, vertical=VERTICALS[entry["group"]], style=style))
    products = [emoji.product for emoji in found]
    assert len(products) == len(set(products)), "two emoji share a slug"
    return found


def slug(name: str) -> str:
    """A name as lower-case ASCII words joined by `-`; `#` and `*` become words."""
    spelt = name.replace("#", "hash").replace("*", "asterisk").replace("&", "and")
    plain = unicodedata.normalize("NFKD", spelt).encode("ascii", "ignore").decode().lower().replace("'", "")
    return re.sub(r"[^a-z0-9]+", "-", plain).strip("-")


def datasource_files(packages: Path, artist: str) -> dict[str, Path]:
    """Code points to the PNG of an `emoji-datasource` package (noto, twemoji)."""
    folder = packages / ARTISTS[artist]
    vendor = ARTISTS[artist].removeprefix("emoji-datasource-")
    return {
        _codes(entry["unified"].split("-")): folder / "img" / vendor / "64" / entry["image"]
        for entry in _read_json(folder / "emoji.json")
        if entry[f"has_img_{vendor}"]
    }


def fluent_files(packages: Path, emoji: list[Emoji]) -> dict[str, Path]:
    """Code points to the WebP of Fluent 3D, without the pictures that are not Microsoft's."""
    wanted = {item.codes for item in emoji if NOT_MICROSOFTS.isdisjoint((item.style, item.product))}
    folder = packages / ARTISTS["fluent-3d"] / "assets"
    files = {_codes(path.stem.split("-")): path for path in sorted(folder.glob("*.webp"))}
    return {codes: path for codes, path in files.items() if codes in wanted}


def iconify_svgs(packages: Path, artist: str, emoji: list[Emoji]) -> dict[str, str]:
    """Code points to SVG text of an Iconify set (noto-v1, emojione-2), joined by name.

    An icon goes to one emoji only: first to the emoji of its very name, then by rename, then by alias.
    """
    data = _read_json(packages / ARTISTS[artist] / "icons.json")
    icons: dict[str, dict[str, Any]] = data["icons"]
    aliases: dict[str, str] = {name: entry["parent"] for name, entry in data["aliases"].items()}
    taken: dict[str, str] = {}
    for names_of in (_own_names, _renamed, lambda item: _aliased(item, aliases)):
        for item in emoji:
            if item.codes in taken.values():
                continue
            icon = next((name for name in names_of(item) if name in icons and name not in taken), None)
            if icon is not None:
                taken[icon] = item.codes
    size = f'viewBox="0 0 {data["width"]} {data["height"]}"'
    xmlns = 'xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink"'
    return {codes: f"<svg {xmlns} {size}>{icons[icon]['body']}</svg>" for icon, codes in taken.items()}


def _own_names(item: Emoji) -> list[str]:
    return [item.product, re.sub("^flag-", "flag-for-", item.product)]


def _renamed(item: Emoji) -> list[str]:
    return [RENAMED[item.product]] if item.product in RENAMED else []


def _aliased(item: Emoji, aliases: dict[str, str]) -> list[str]:
    names = [name for name in _own_names(item) if name not in WRONG_ALIASES]
    return [aliases[name] for name in names if name in aliases]


def _codes(parts: Any) -> str:
    return "-".join(f"{int(part, 16):x}" for part in parts if int(part, 16) != 0xFE0F)


def _read_json(path: Path) -> Any:
    return json.loads(path.read_text(encoding="utf-8"))
