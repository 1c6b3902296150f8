"""Triplets that people verified, checked against the catalogue: FIG. 6 of the unified-embedding paper."""

from __future__ import annotations

import functools
import unicodedata
from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

import numpy as np
from jaxtyping import Int64

from univert.core.errors import BadInputError, nearest_name
from univert.core.files import fingerprint
from univert.core.terminal import progress_bar
from univert.data.catalogue import Catalogue
from univert.data.rows import ProblemLog, SourceProblem, is_utf8, printable
from univert.data.tables import cell_text, count_table_rows, read_table

ROLES: Final = ("anchor", "positive", "negative")
"""The columns of a file of triplets, and what the three images of a triplet are."""

_Pair = frozenset[int | str]
"""Two things of which a triplet says something: products, or images whose product is unknown."""


@dataclass(frozen=True, kw_only=True, slots=True)
class TripletRow:
    """One triplet as the file gives it: where it stands, the ids of its images and their vertical; None if empty."""

    origin: str
    ids: tuple[str | None, str | None, str | None]
    vertical: str | None = None

    def problem(self, kind: str, detail: str, fix: str) -> SourceProblem:
        """Why this triplet cannot be used."""
        return SourceProblem(kind, self.origin, detail, fix)


@dataclass(frozen=True, kw_only=True)
class TripletReport:
    """What a file of triplets held: of its rows those used and rejected, and those used in each vertical.

    `unlabelled` are those used that have an image whose product the catalogue does not know. `problems` counts each
    kind, of which a triplet may have several; `found` has them in words, and `rejected_csv`, if asked for, all of them.
    """

    path: Path
    rows: int
    used: int
    unlabelled: int
    rejected: int
    problems: dict[str, int]
    found: str
    verticals: dict[str, int]
    rejected_csv: Path | None

    def summary(self) -> str:
        """The report in words: one line, and below it the problems with their examples."""
        return f"{self.path}: {self.used:,} of {self.rows:,} triplets can be used\n{self.found}".rstrip()


class TripletProblemsError(BadInputError):
    """Triplets that cannot be used: the message, and `report`, count each kind and name the first few."""

    def __init__(self, advice: str, report: TripletReport) -> None:
        super().__init__(f"{report.summary()}\n{advice}")
        self.report = report


@dataclass(frozen=True, kw_only=True, eq=False)
class CleanTriplets:
    """Triplets that can be learned from, in the order of their file; all numbers are positions in the catalogue.

    Attributes:
        anchors: an image each.
        positives: another image of the anchor's product.
        negatives: an image of another product of the same vertical.
        verticals: of each triplet.
        report: what the file held.
    """

    anchors: Int64[np.ndarray, "T"]
    positives: Int64[np.ndarray, "T"]
    negatives: Int64[np.ndarray, "T"]
    verticals: np.ndarray
    report: TripletReport

    def __len__(self) -> int:
        return len(self.anchors)

    def of(self, verticals: Collection[str]) -> CleanTriplets:
        """Those of some verticals."""
        chosen = np.isin(self.verticals, list(verticals))
        return replace(
            self,
            anchors=self.anchors[chosen],
            positives=self.positives[chosen],
            negatives=self.negatives[chosen],
            verticals=self.verticals[chosen],
        )

    @property
    def fingerprint(self) -> str:
        """A hash of the triplets, wherever their file lies."""
        rows = np.stack([self.anchors, self.positives, self.negatives])
        return fingerprint(rows.astype("<i8").tobytes())


def read_clean_triplets(
    path: Path | str,
    catalogue: Catalogue,
    *,
    on_bad: str = "reject",
    rejected_csv: Path | None = None,
    not_chosen: Collection[str] = (),
) -> CleanTriplets:
    """Read verified triplets of image ids and check them against the catalogue.

    A triplet cannot be used if an id is missing or unknown, an image is in it twice or is not in the training split
    (held-out images are never learned from), anchor and positive are of different products or verticals, the negative
    is of another vertical or of the anchor's product, or if the file has it already or says the opposite elsewhere.

    An image whose product is unknown may be in any place: whoever verified the triplet knew more than the
    catalogue, and its vertical is still checked. Where that is none of the labelled products', such as `unknown`, the
    image has the vertical that the file gives.

    Args:
        path: see `read_triplet_rows`.
        catalogue: with the images; give a selection to leave the other verticals' out.
        on_bad: `reject` raises an error if any triplet cannot be used, `skip` leaves those out.
        rejected_csv: where to list every problem.
        not_chosen: ids of images that the selection left out, so that they are not called unknown.

    Raises:
        TripletProblemsError: triplets that cannot be used, or none that can.
        BadInputError: the file cannot be read, or an unknown `on_bad`.
    """
    if on_bad not in ("reject", "skip"):
        raise BadInputError(f"on_bad must be 'reject' or 'skip', got {on_bad!r}")
    path = Path(path)
    checks = _Checks(catalogue, not_chosen)
    good: list[tuple[int, ...]] = []
    verticals: list[str] = []
    with (
        ProblemLog(rejected_csv) as log,
        progress_bar("Checking triplets", count_table_rows(path), unit="triplets") as advance,
    ):
        for row in read_triplet_rows(path):
            log.rows += 1
            problems = [row] if isinstance(row, SourceProblem) else checks.problems(row)
            if problems:
                log.reject(problems)
            elif isinstance(row, TripletRow):
                good.append(checks.accept(row))
                verticals.append(checks.verticals(row)[0])
            advance(1)
    table = np.array(good, np.int64).reshape(-1, len(ROLES))
    report = TripletReport(
        path=path,
        rows=log.rows,
        used=len(good),
        unlabelled=sum(any(checks.products[image] is None for image in row) for row in good),
        rejected=log.rejected,
        problems=dict(log.counts.most_common()),
        found=log.summary(),
        verticals=dict(sorted(Counter(verticals).items())),
        rejected_csv=rejected_csv,
    )
    if not good:
        advice = "No triplet is left: the ids must be those of training images of this catalogue."
        raise TripletProblemsError(advice, report)
    if report.rejected and on_bad == "reject":
        raise TripletProblemsError("Fix these, or leave them out with --on-bad skip (on_bad='skip').", report)
    anchors, positives, negatives = table.T.copy()
    return CleanTriplets(
        anchors=anchors, positives=positives, negatives=negatives, verticals=np.array(verticals, object), report=report
    )


def read_triplet_rows(path: Path | str) -> Iterator[TripletRow | SourceProblem]:
    """Read a table with the columns `anchor`, `positive`, `negative`, and perhaps `vertical`, in its order.

    Raises:
        BadInputError: there is no such file, its suffix is unknown, it cannot be read, or a column is missing.
    """
    path = Path(path)
    if not path.is_file():
        raise BadInputError(f"{path}: no such file; give one with the columns {', '.join(ROLES)}")
    return map(_triplet_row, read_table(path, (*ROLES, "vertical"), functools.partial(_check_columns, path)))


def _triplet_row(item: tuple[str, Mapping[str, Any]] | SourceProblem) -> TripletRow | SourceProblem:
    if isinstance(item, SourceProblem):
        return item
    origin, values = item
    texts = (cell_text(values.get(role)) or "" for role in ROLES)
    anchor, positive, negative = (unicodedata.normalize("NFC", text) or None for text in texts)  # as a catalogue's ids
    if not all(is_utf8(name) for name in (anchor, positive, negative) if name):
        return SourceProblem("bad line", origin, "not UTF-8", "save the file as UTF-8")
    vertical = unicodedata.normalize("NFC", cell_text(values.get("vertical")) or "")
    return TripletRow(origin=origin, ids=(anchor, positive, negative), vertical=vertical or None)


def _check_columns(path: Path, names: Sequence[str]) -> None:
    """The columns of a triplet, each of which must be there once."""
    for role in ROLES:
        if names.count(role) != 1:
            what = "no column" if role not in names else "more than one column"
            near = nearest_name(role, [name for name in names if name not in ROLES])
            hint = f"is it {near!r}? " if near else ""
            there = printable(", ".join(names)) or "none"
            raise BadInputError(
                f"{path}: {what} {role!r}; {hint}name the columns {', '.join(ROLES)} (there are: {there})"
            )


class _Checks:
    """What the catalogue says of a triplet, and what the triplets accepted so far do."""

    def __init__(self, catalogue: Catalogue, not_chosen: Collection[str]) -> None:
        self._not_chosen = not_chosen
        self.products: list[str | None] = catalogue.column("product").tolist()
        self._verticals: list[str] = catalogue.column("vertical").tolist()
        pairs = zip(self._verticals, self.products, strict=True)
        self._known_verticals = {vertical for vertical, product in pairs if product is not None}
        self._splits: list[str | None] = catalogue.column("split").tolist()
        self._position = {name: place for place, name in enumerate(catalogue.column("id").tolist())}
        self._known_products = {product for product in self.products if product is not None}
        self._lines: dict[tuple[int, ...], str] = {}
        self._said: dict[_Pair, tuple[bool, str]] = {}
        self._product_of: dict[int, tuple[str, str]] = {}

    def problems(self, row: TripletRow) -> list[SourceProblem]:
        """All that keeps a triplet out; empty for a good one."""
        return self._of_ids(row) or self._of_images(row) or self._against_others(row)

    def accept(self, row: TripletRow) -> tuple[int, ...]:
        """Remember a good triplet; its positions."""
        images = self._images(row)
        self._lines[images] = row.origin
        for pair, same in self._claims(images):
            self._said.setdefault(pair, (same, row.origin))
            image, product = _image_and_product(pair)
            if same and image is not None and product is not None:
                self._product_of.setdefault(image, (product, row.origin))
        return images

    def verticals(self, row: TripletRow) -> list[str]:
        """Of each image: the catalogue's where that is known, or else what the row says."""
        found = (self._verticals[image] for image in self._images(row))
        return [one if one in self._known_verticals else row.vertical or one for one in found]

    def _images(self, row: TripletRow) -> tuple[int, ...]:
        return tuple(self._position[name or ""] for name in row.ids)

    def _claims(self, images: tuple[int, ...]) -> list[tuple[_Pair, bool]]:
        """What a triplet says of its pairs: whether they show one product."""
        anchor, positive, negative = (self.products[image] or image for image in images)
        pairs = ((anchor, positive, True), (anchor, negative, False), (positive, negative, False))
        return [(frozenset((one, other)), same) for one, other, same in pairs]

    def _of_ids(self, row: TripletRow) -> list[SourceProblem]:
        found = []
        for role, name in zip(ROLES, row.ids, strict=True):
            if name is None:
                found.append(row.problem("missing id", f"no {role}", "give the id of an image"))
            elif name in self._not_chosen:
                fix = "leave it out, or choose its vertical, too"
                found.append(row.problem("image of a vertical not chosen", f"{role} {name!r}", fix))
            elif name not in self._position:
                fix = "give the id of an image of the catalogue"
                if name in self._known_products:
                    fix = "that is a product; give the id of one of its images"
                found.append(row.problem("unknown id", f"{role} {name!r}", fix))
        return found

    def _of_images(self, row: TripletRow) -> list[SourceProblem]:
        images = self._images(row)
        found = []
        if len(set(images)) < len(images):
            found.append(row.problem("one image twice", ", ".join(map(repr, row.ids)), "give three different images"))
        for role, name, image in zip(ROLES, row.ids, images, strict=True):
            split = self._splits[image]
            if split != "train":
                fix = "what measures a model is never learned from: take training images"
                kind = f"image of the {split} split" if split else "image of no split"
                found.append(row.problem(kind, f"{role} {name!r}", fix))
        anchor, positive, negative = (self.products[image] for image in images)
        home, *others = self.verticals(row)
        if others[0] != home:
            detail = f"{home!r} and {others[0]!r}"
            found.append(row.problem("positive of another vertical", detail, "one product has one vertical"))
        elif None not in (anchor, positive) and anchor != positive:
            fix = "correct the triplet, or the catalogue's labels"
            found.append(row.problem("positive of another product", f"{anchor!r} and {positive!r}", fix))
        if others[1] != home:
            fix = "take a negative of the anchor's vertical (eq. 1 of the unified-embedding paper)"
            found.append(row.problem("negative of another vertical", f"{home!r} and {others[1]!r}", fix))
        elif negative is not None and negative in (anchor, positive):
            fix = "take another product, or correct the catalogue's labels"
            found.append(row.problem("negative of the same product", f"{negative!r}", fix))
        return found

    def _against_others(self, row: TripletRow) -> list[SourceProblem]:
        images = self._images(row)
        if images in self._lines:
            return [row.problem("duplicate", f"as {self._lines[images]}", "remove one of them")]
        for pair, same in self._claims(images):
            earlier, origin = self._said.get(pair, (same, ""))
            if earlier != same:
                names = " and ".join(repr(row.ids[images.index(k)] if isinstance(k, int) else k) for k in pair)
                verb = "the same product" if earlier else "different products"
                return [row.problem("contradiction", f"{origin} has {names} as {verb}", "verify them again")]
            image, product = _image_and_product(pair)
            if same and image in self._product_of and product not in (None, self._product_of[image][0]):
                known, origin = self._product_of[image]
                detail = f"{origin} has {row.ids[images.index(image)]!r} as {known!r}, this one as {product!r}"
                return [row.problem("contradiction", detail, "verify the image again")]
        return []


def _image_and_product(pair: _Pair) -> tuple[int | None, str | None]:
    image = next((key for key in pair if isinstance(key, int)), None)
    return image, next((key for key in pair if isinstance(key, str)), None)
