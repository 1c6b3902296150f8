import csv
import os
import random
import resource
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.data.pictures import encoded, jpeg, noise, png, png_bomb, write
from univert.core.errors import BadInputError
from univert.data.build import build_catalogue, parse_background
from univert.data.catalogue import Catalogue
from univert.data.readers import open_source
from univert.data.rows import CatalogueProblemsError, SourceProblem, SourceRow
from univert.data.splits import split_of


def row(name: str = "a", **fields: object) -> SourceRow:
    values: dict = {"origin": f"list:{name}", "id": name, "vertical": "shoes", "image": png()} | fields
    if values.get("path"):
        values["image"] = None
    return SourceRow(**values)


def problems_of(rows: list[SourceRow | SourceProblem], folder: Path) -> CatalogueProblemsError:
    """Build, expect to be refused and to find nothing on disk."""
    with pytest.raises(CatalogueProblemsError) as caught:
        build_catalogue(rows, folder / "out")
    assert caught.value.exit_code == 2
    assert not list(folder.glob("*out*")) and not list(folder.glob(".*"))  # noqa: PT018
    return caught.value


def only_kind(rows: list[SourceRow | SourceProblem], folder: Path) -> str:
    (kind,) = problems_of(rows, folder).counts
    return kind


def test_a_tree_becomes_a_catalogue(tmp_path):
    images = {"bags/b1/x.png": png(1), "shoes/s1/a.jpg": jpeg(2), "shoes/s1/b.png": png(3), "shoes/c.png": png(4)}
    for place, content in images.items():
        write(tmp_path / "src" / place, content)
    report = build_catalogue(open_source(tmp_path / "src"), tmp_path / "out")
    catalogue = Catalogue.open(tmp_path / "out")
    assert catalogue.column("id").tolist() == sorted(images)
    assert catalogue.image_bytes(range(4)) == [images[name] for name in sorted(images)]
    assert catalogue.column("product").tolist() == ["b1", None, "s1", "s1"]
    assert report.fingerprint == catalogue.fingerprint
    assert report.images == 4
    assert report.summary() == f"{tmp_path / 'out'}: 4 images"
    assert report.rejected == 0
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out", "src"]


def test_a_manifest_linked_or_not_is_the_same_catalogue(tmp_path):
    for n in range(4):
        write(tmp_path / f"img/{n}.png", png(n))
    text = "path,vertical,product,split\n" + "".join(f"img/{n}.png,v,p{n // 2},test\n" for n in range(4))
    manifest = write(tmp_path / "m.csv", text.encode())
    stored = build_catalogue(open_source(manifest), tmp_path / "stored")
    linked = build_catalogue(open_source(manifest), tmp_path / "linked", link=True)
    assert stored.fingerprint == linked.fingerprint
    first, second = Catalogue.open(stored.path), Catalogue.open(linked.path)
    assert first.image_bytes(range(4)) == second.image_bytes(range(4))
    assert first.column("uri").tolist() == [None] * 4
    assert second.column("uri").tolist() == [(tmp_path / f"img/{n}.png").as_uri() for n in range(4)]
    assert sum(p.stat().st_size for p in (linked.path / "data").iterdir()) < 4500


def bad_tree(root: Path) -> None:
    """One file of every kind that a folder can hold, and two good ones."""
    folder = root / "shoes/p"
    write(folder / "good.png", png(1))
    write(folder / "also good.jpg", jpeg(2))
    write(folder / "empty.jpg", b"")
    write(folder / "text.jpg", b"hello")
    write(folder / "cut.jpg", jpeg(3, 200, 200)[:2000])
    write(folder / "bomb.png", png_bomb())
    write(folder / "phone.heic", b"\0\0\0\x18ftypheic\0\0\0\0mif1heic")
    write(root / "bags/p/other.png", png(4))
    (folder / "loop").symlink_to(root / "shoes")
    (folder / "gone.png").symlink_to(root / "nothing")
    Path(os.fsdecode(os.fsencode(folder) + b"/\xff.jpg")).write_bytes(png())


def test_one_summary_names_every_problem(tmp_path):
    bad_tree(tmp_path / "src")
    error = problems_of(list(open_source(tmp_path / "src")), tmp_path)
    assert error.counts == {
        "empty": 1,
        "not an image": 1,
        "damaged": 1,
        "too large": 1,
        "unsupported format": 1,
        "product in two verticals": 2,
        "symlink loop": 1,
        "broken link": 1,
        "name not UTF-8": 1,
    }
    message = str(error)
    message.encode("utf-8")
    assert message.startswith("10 of 11 images cannot enter the catalogue:\n  2 x product in two verticals\n")
    assert f"{tmp_path / 'src/shoes/p/cut.jpg'}: the image is damaged" in message
    assert "pass --skip-bad" in message.splitlines()[-1]


def test_skip_bad_builds_the_rest_and_lists_the_reasons(tmp_path):
    bad_tree(tmp_path / "src")
    report = build_catalogue(open_source(tmp_path / "src"), tmp_path / "out", skip_bad=True)
    catalogue = Catalogue.open(tmp_path / "out")
    assert catalogue.column("id").tolist() == ["bags/p/other.png"]
    assert (report.images, report.rejected) == (1, 10)
    with (tmp_path / "out/rejected.csv").open(encoding="utf-8") as file:
        listed = list(csv.DictReader(file))
    assert len(listed) == 10
    assert {line["kind"] for line in listed} == set(report.problems)
    assert all(line["origin"] and line["detail"] and line["fix"] for line in listed)
    assert "10 left out" in report.summary()
    assert str(report.rejected_csv) in report.summary()
    again = build_catalogue([row()], tmp_path / "clean", skip_bad=True)
    assert again.rejected_csv.read_text().splitlines() == ["origin,kind,detail,fix"]
    with pytest.raises(CatalogueProblemsError, match="No image is left"):
        build_catalogue([row(image=b"")], tmp_path / "none", skip_bad=True)
    assert not (tmp_path / "none").exists()


@pytest.mark.parametrize(
    ("fields", "kind"),
    [
        ({"split": "training"}, "unknown split"),
        ({"vertical": ""}, "no vertical"),
        ({"image": None}, "no image"),
        ({"path": Path("/nowhere/x.png")}, "missing file"),
        ({"path": Path("/dev/zero")}, "unreadable"),
        ({"product": "\udcff"}, "name not UTF-8"),
        *[({name: "a\0b"}, "control character") for name in ("id", "vertical", "product", "brand", "style", "source")],
        ({"product": "shoes\nim/1.png,v"}, "control character"),
        ({"brand": "\x1b[31mAcme"}, "control character"),
        ({"box_xyxy_px": (0, 0, float("nan"), 3)}, "degenerate box"),
        ({"box_xyxy_px": (0, 0, 60, 3)}, "box outside"),
        ({"box_xyxy_px": (6.2, 0, 6.8, 3)}, "box outside"),
    ],
)
def test_bad_fields_by_kind(tmp_path, fields, kind):
    assert only_kind([row(**fields)], tmp_path) == kind


@pytest.mark.parametrize("fields", [{"origin": "shop/a\x1b[2J.png"}, {"product": "a\x9b\n" * 10_000}])
def test_a_problem_is_told_in_a_line_that_does_nothing_to_a_terminal(tmp_path, fields):
    message = str(problems_of([row(**{"split": "training"} | fields)], tmp_path))
    assert all(line.isprintable() and len(line) < 1000 for line in message.splitlines())


def test_rows_against_each_other(tmp_path):
    assert only_kind([row("a"), row("a", brand="Acme")], tmp_path) == "duplicate id"
    assert only_kind([row("a"), row("a", image=png(1))], tmp_path) == "duplicate id"
    two_verticals = [row("a", product="p"), row("b", product="p", vertical="bags")]
    assert only_kind(two_verticals, tmp_path) == "product in two verticals"
    two_splits = [row("a", product="p", split="val"), row("b", product="p", split="test")]
    assert only_kind(two_splits, tmp_path) == "product in two splits"
    half_given = [row("a", product="p"), row("b", product="p", split="val")]
    assert split_of("p", "shoes") != "val"
    assert "none of them any" in str(problems_of(half_given, tmp_path))
    assert "list:a" in str(problems_of(half_given, tmp_path))


def test_a_row_that_is_there_twice_is_taken_once(tmp_path):
    report = build_catalogue([row("a"), row("b", image=png(1)), row("a"), row("a")], tmp_path / "out")
    assert Catalogue.open(tmp_path / "out").column("id").tolist() == ["a", "b"]
    assert report.warnings[0] == "rows that repeat another, each taken once: 2 (list:a repeats list:a); remove them"
    assert report.fingerprint == build_catalogue([row("b", image=png(1)), row("a")], tmp_path / "once").fingerprint


def test_what_can_hardly_be_meant_is_said(tmp_path):
    rows = [row("a", product="nan"), row("b", product="#N/A", image=png(1)), row("c", product="x", vertical="Shoes")]
    lines = build_catalogue(rows, tmp_path / "out").summary().splitlines()
    assert lines[0].endswith("out: 3 images")
    assert lines[1].startswith("warning: names of vertical that differ in letter case")
    assert lines[2].startswith("warning: names of product that stand for a missing value: ")
    assert lines[3].startswith("warning: the same picture, byte for byte, under several products: 1 such ")
    with pytest.raises(CatalogueProblemsError, match="if it stands for a missing value, leave the field empty"):
        build_catalogue([*rows, row("d", product="nan", vertical="bags")], tmp_path / "other")


def test_two_unicode_forms_are_one_name(tmp_path):
    rows = [row("a\u0308", product="e\u0301", vertical="o\u0308"), row("b", product="\u00e9", vertical="\u00f6")]
    build_catalogue(rows, tmp_path / "out")
    catalogue = Catalogue.open(tmp_path / "out")
    assert catalogue.verticals == ["\u00f6"]
    assert set(catalogue.column("product")) == {"\u00e9"}
    assert catalogue.column("id").tolist() == ["b", "\u00e4"]
    assert len(catalogue.select(vertical="o\u0308")) == 2


def test_overwriting(tmp_path):
    out = tmp_path / "out"
    build_catalogue([row("a")], out)
    with pytest.raises(BadInputError, match="pass --overwrite"):
        build_catalogue(iter([row("b")]), out)
    with pytest.raises(CatalogueProblemsError):
        build_catalogue([row("b", image=b"")], out, overwrite=True)
    assert Catalogue.open(out).column("id").tolist() == ["a"]
    build_catalogue([row("b")], out, overwrite=True)
    assert Catalogue.open(out).column("id").tolist() == ["b"]
    precious = write(tmp_path / "home/thesis.txt", b"years of work").parent
    with pytest.raises(BadInputError, match="is not a catalogue, so --overwrite leaves it alone"):
        build_catalogue([row("b")], precious, overwrite=True)
    assert (precious / "thesis.txt").exists()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["home", "out"]


def test_background(tmp_path):
    assert parse_background("#0a0B0c") == (10, 11, 12)
    for text in ("fff", "gggggg", "red"):
        with pytest.raises(BadInputError, match="RRGGBB"):
            parse_background(text)
    with pytest.raises(BadInputError, match="background_rgb"):
        build_catalogue([row()], tmp_path / "out", background_rgb=(0, 0, 256))


def test_a_full_disk_leaves_nothing(tmp_path):
    # random bytes after the pixels: Lance would compress repetitions
    content = encoded(noise(), "BMP")
    rows = (row(f"r{n}", image=content + os.urandom(20_000)) for n in range(1500))
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (3_000_000, hard))
    try:
        with pytest.raises(BadInputError, match=r"out: cannot write the catalogue: .*free some space"):
            build_catalogue(rows, tmp_path / "out", skip_bad=True)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert not list(tmp_path.iterdir())


BUILD_SCRIPT = textwrap.dedent(
    """
    import sys, resource, itertools, signal
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a background job inherits it switched off
    sys.path.insert(0, {root!r})
    from pathlib import Path
    from tests.data.pictures import encoded, noise
    from univert.data.rows import SourceRow
    from univert.data.build import build_catalogue

    image = encoded(noise(180, 180), "BMP")

    def rows(count):
        for n in itertools.islice(itertools.count(), count):
            if n == 800:
                print("ready", flush=True)
            content = image[:-4] + n.to_bytes(4, "little")
            yield SourceRow(origin=str(n), id=str(n), image=content, vertical="v", product=f"p{{n // 4}}")

    def peak_mib():
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    """
)


def script(body: str) -> list[str]:
    root = str(Path(__file__).resolve().parents[2])
    return [sys.executable, "-W", "error", "-c", BUILD_SCRIPT.format(root=root) + textwrap.dedent(body)]


def test_ctrl_c_leaves_nothing(tmp_path):
    body = f"build_catalogue(rows(None), Path({str(tmp_path / 'out')!r}))"
    process = subprocess.Popen(script(body), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    try:
        assert process.stdout.readline() == "ready\n"
        assert list(tmp_path.iterdir())
        started = time.monotonic()
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=30)
    finally:
        process.kill()  # it would go on until the disk is full
    assert "KeyboardInterrupt" in errors.splitlines()[-1]
    assert time.monotonic() - started < 10
    assert not list(tmp_path.iterdir())


def test_memory_does_not_grow_with_the_catalogue(tmp_path):
    body = f"""
    build_catalogue(rows(300), Path({str(tmp_path / "small")!r}))
    before = peak_mib()
    build_catalogue(rows(1500), Path({str(tmp_path / "large")!r}))
    print(peak_mib() - before)
    """
    printed = subprocess.run(script(body), check=True, capture_output=True, text=True).stdout
    # 1,500 images of 97 kB are 139 MiB
    assert float(printed.split()[-1]) < 60
    assert len(Catalogue.open(tmp_path / "large")) == 1500


NAMES = st.text(st.characters(exclude_categories=["Cs", "Cc"]), min_size=1, max_size=8)


@settings(max_examples=10, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    products=st.dictionaries(NAMES, st.tuples(st.sampled_from(["v", "w"]), st.integers(1, 4)), min_size=1, max_size=8),
    seed=st.randoms(use_true_random=False),
)
def test_order_and_place_of_a_build_do_not_matter(tmp_path_factory, products: dict, seed: random.Random):
    rows = [
        row(f"{name}/{n}", vertical=vertical, product=name, image=png(n))
        for name, (vertical, images) in products.items()
        for n in range(images)
    ]
    folder = tmp_path_factory.mktemp("order")
    one = build_catalogue(rows, folder / "one")
    seed.shuffle(rows)
    two = build_catalogue(rows, folder / "two", workers=1)
    assert one.fingerprint == two.fingerprint
    first, second = Catalogue.open(one.path), Catalogue.open(two.path)
    for column in ("id", "product", "split", "vertical"):
        assert first.column(column).tolist() == second.column(column).tolist()
    assert first.image_bytes(range(len(first))) == second.image_bytes(range(len(second)))
    splits: dict[str, set[str]] = {}
    for product, split in zip(first.column("product"), first.column("split"), strict=True):
        splits.setdefault(product, set()).add(split)
    assert all(len(found) == 1 for found in splits.values())
    if len(rows) > 1:
        assert build_catalogue(rows[1:], folder / "less").fingerprint != one.fingerprint
