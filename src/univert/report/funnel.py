"""The report of a curation: how much of a query log is left at each stage, and samples of what is out and why."""

from __future__ import annotations

import csv
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from univert.core.files import write_atomic
from univert.curation.agreement import Agreement
from univert.curation.curate import Curation
from univert.data.ratings import Ratings
from univert.data.triplets import ROLES
from univert.report.page import page_environment, page_style
from univert.report.thumbnails import data_uri, thumbnails

_SAMPLES: Final = 8
_QUERIES_SHOWN: Final = 12
_TRIPLETS_SHOWN: Final = 6
_PICTURE_PX: Final = 112
_STAGES: Final = {
    "missing": ("among the images", "not among the images"),
    "vertical": ("of no other vertical", "of another vertical"),
    "pixels": ("with good pixels", ""),
    "repeated": ("not repeated in one query", "nearly the same as another result"),
    "match": ("that the query describes", "not what the query asks for"),
}
"""What each stage leaves, and the heading of what it leaves out; `pixels` has one for each thing that can be wrong."""
_KEPT: Final = "kept"


def report_curation(curation: Curation) -> dict[str, Any]:
    """Write `report.html` of a curation.

    Returns:
        what the page counts: `stages` (title, unit, count), `out` (why pictures are out), `verticals`.
    """
    queries, results = _Queries.of(curation), _Results.of(curation)
    stages = [*queries.stages(), *results.stages(), *_triplet_stages(curation)]
    by_vertical = [
        {
            "vertical": name,
            "queries": asked,
            "results": results.by_vertical[name],
            "triplets": curation.triplets.get(name, 0),
        }
        for name, asked in sorted(queries.by_vertical.items())
    ]
    kinds = [_KEPT, *(kind for kind, _ in results.kinds.most_common() if kind != _KEPT)]
    shown = [(kind, results.kinds[kind], results.samples.of(kind)) for kind in kinds if results.kinds[kind]]
    triplets = _sample_triplets(curation)
    pictures = _pictures(curation, [row for _, _, rows in shown for row in rows], triplets)
    page = page_environment().get_template("funnel.html.jinja").render(
        stages=_bars(stages), verticals=by_vertical, shown=shown, kept=_KEPT, triplets=triplets, roles=ROLES,
        pictures=pictures, unparsed=queries.samples.of("none"), parsed=queries.samples.of("parsed"),
        problems=queries.samples.of("problem"), folder=curation.path.name, style=page_style(),
    )  # fmt: skip
    write_atomic(curation.path / "report.html", page)
    return {
        "stages": stages,
        "out": {kind: count for kind, count, _ in shown if kind != _KEPT},
        "verticals": by_vertical,
    }


def _stage(title: str, unit: str, count: int) -> dict[str, Any]:
    return {"title": title, "unit": unit, "count": count}


def _bars(stages: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """The stages with their share of the first one, and of the one before, of their unit."""
    first: dict[str, int] = {}
    before: dict[str, int] = {}
    rows = []
    for stage in stages:
        unit, count = stage["unit"], stage["count"]
        share = count / first.setdefault(unit, count) if first.get(unit, count) else 0.0
        last = before.get(unit)
        rows.append({**stage, "share": share, "of_last": count / last if last else None})
        before[unit] = count
    return rows


class _Samples:
    """A few rows of each kind, chosen fairly whatever the number of parts."""

    def __init__(self, size: int) -> None:
        self._size, self._rng = size, np.random.default_rng(0)
        self._drawn: dict[str, list[tuple[float, dict[str, Any]]]] = defaultdict(list)

    def look(self, kind: str, rows: pa.Table) -> None:
        """Rows of a kind."""
        draws = self._rng.random(len(rows))
        least = np.argsort(draws)[: self._size]
        taken = zip(draws[least].tolist(), rows.take(least).to_pylist(), strict=True)
        self._drawn[kind] = sorted([*self._drawn[kind], *taken], key=lambda one: one[0])[: self._size]

    def of(self, kind: str) -> list[dict[str, Any]]:
        """The chosen rows of a kind."""
        return [row for _, row in self._drawn[kind]]


@dataclass(kw_only=True)
class _Queries:
    rows: int
    bad: int
    asked: int
    asked_parsed: int
    by_vertical: Counter[str]
    samples: _Samples

    @classmethod
    def of(cls, curation: Curation) -> _Queries:
        found = cls(rows=0, bad=0, asked=0, asked_parsed=0, by_vertical=Counter(), samples=_Samples(_QUERIES_SHOWN))
        columns = ["query", "count", "vertical", "confidence", "why", "problem"]
        for part in range(curation.queries.count):
            table = curation.queries.read(part, columns)
            bad, parsed = table["problem"].is_valid(), table["vertical"].is_valid()
            found.rows += len(table)
            found.bad += pc.sum(bad).as_py()
            found.asked += pc.sum(table["count"]).as_py()
            found.asked_parsed += pc.sum(table.filter(parsed)["count"]).as_py() or 0
            found.by_vertical.update(_counts(table.filter(parsed)["vertical"]))
            found.samples.look("problem", table.filter(bad))
            found.samples.look("parsed", table.filter(parsed))
            found.samples.look("none", table.filter(pc.and_(pc.invert(bad), pc.invert(parsed))))
        return found

    def stages(self) -> Iterator[dict[str, Any]]:
        yield _stage("Queries in the log", "queries", self.rows)
        if self.bad:
            yield _stage("that can be read", "queries", self.rows - self.bad)
        yield _stage("with a vertical", "queries", self.by_vertical.total())
        if self.asked > self.rows - self.bad:  # the log counts
            yield _stage("Searches", "searches", self.asked)
            yield _stage("of queries with a vertical", "searches", self.asked_parsed)


@dataclass(kw_only=True)
class _Results:
    count: int
    left: Counter[str]
    kinds: Counter[str]
    by_vertical: Counter[str]
    samples: _Samples

    @classmethod
    def of(cls, curation: Curation) -> _Results:
        found = cls(count=0, left=Counter(), kinds=Counter(), by_vertical=Counter(), samples=_Samples(_SAMPLES))
        for part in range(curation.ratings.count):
            asked = curation.queries.read(part, ["number", "query", "vertical"])
            table = curation.ratings.read(part).join(asked, "number")
            columns = (table[name].to_pylist() for name in ("kept", "stage", "why"))
            kinds = np.array(list(map(_kind, *columns)), dtype=object)
            found.count += len(table)
            found.left.update(_counts(table["stage"]))
            found.kinds.update(kinds.tolist())
            found.by_vertical.update(_counts(table.filter(table["kept"])["vertical"]))
            for kind in set(kinds):
                found.samples.look(kind, table.filter(pa.array(kinds == kind)))
        return found

    def stages(self) -> Iterator[dict[str, Any]]:
        yield _stage("Pictures of these queries", "results", self.count)
        left = self.count
        for stage, (title, _) in _STAGES.items():
            out = self.left[stage] - (self.kinds[_KEPT] if stage == "match" else 0)
            left -= out
            if out or stage == "match":
                yield _stage(title, "results", left)


def _kind(kept: bool, stage: str, why: str) -> str:
    if kept:
        return _KEPT
    return why.partition(":")[0].partition(" (")[0] if stage == "pixels" else _STAGES[stage][1]


def _counts(column: pa.ChunkedArray) -> dict[str, int]:
    return {one["values"]: one["counts"] for one in column.value_counts().to_pylist()}


def _triplet_stages(curation: Curation) -> Iterator[dict[str, Any]]:
    yield _stage("Image triplets", "triplets", sum(curation.triplets.values()))
    path = curation.path / "triplets.ratings"
    if path.exists():
        with Ratings(path) as ratings:
            found = Agreement(ratings).summary(0.95)
        yield _stage("rated by people", "triplets", found.rated)
        yield _stage("clean", "triplets", found.clean)


def _sample_triplets(curation: Curation) -> list[dict[str, Any]]:
    with (curation.path / "triplets.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    chosen = np.sort(np.random.default_rng(0).permutation(len(rows))[:_TRIPLETS_SHOWN])
    return [rows[place] for place in chosen.tolist()]


def _pictures(
    curation: Curation, rows: Sequence[Mapping[str, Any]], triplets: Sequence[Mapping[str, Any]]
) -> dict[str, str]:
    """Thumbnails by id."""
    ids = sorted(
        {row["id"] for row in rows if row["position"] >= 0} | {one[role] for one in triplets for role in ROLES}
    )
    place = {name: position for position, name in enumerate(curation.images.column("id").tolist())}
    positions = [place[name] for name in ids]
    drawn = thumbnails(curation.images, positions, size_px=_PICTURE_PX)
    return {name: data_uri(image) for name, image in zip(ids, drawn, strict=True)}
