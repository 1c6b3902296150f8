import logging
from pathlib import Path

import pytest

from tests.tables import table_text
from univert.cli.searching import hits_table
from univert.core.run import Run
from univert.core.terminal import Name, new_table, print_table, progress_bar, progress_lines
from univert.search.query import Hit

LONG = "Home & Garden > Kitchen > Cookware sets > Non-stick"


def hits() -> list[Hit]:
    names = {"vertical": LONG, "brand": "Ceramica del Mediterraneo"}
    return [Hit(id=f"im/3{i}.png", distance=0.005, product=f"{LONG} {i}", **names) for i in range(10)]


@pytest.fixture
def every_line(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without waiting ten seconds for the next."""
    monkeypatch.setattr("univert.core.terminal._SECONDS_A_LINE", 0.0)


@pytest.mark.usefixtures("every_line")
def test_without_a_terminal_progress_is_lines_here_and_in_the_run(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with progress_lines(logging.StreamHandler()), Run(tmp_path).locked():
        with progress_bar("specialists/bags", 1200, unit="steps") as advance:
            advance(1100)
            advance(1)
        with progress_bar("reading", None) as advance:
            advance(3)
    lines = capsys.readouterr().err.splitlines()
    said = ["specialists/bags: 1,100 of 1,200 steps", "specialists/bags: 1,101 of 1,200 steps", "reading: 3 images"]
    assert [line.split(" ", 2)[2] for line in lines] == said
    assert (tmp_path / "progress.log").read_text().splitlines() == lines
    with progress_bar("nobody listens", 1) as advance:
        advance(1)
    assert capsys.readouterr().err == ""


def test_a_line_is_not_due_before_ten_seconds(capsys: pytest.CaptureFixture[str]) -> None:
    with progress_lines(logging.StreamHandler()), progress_bar("quick", 5) as advance:
        advance(5)
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize("width", [20, 60, 80, 110, 10_000])
def test_a_search_shows_rank_distance_and_id_whole_at_any_width(width: int) -> None:
    lines = table_text(hits_table(hits()), width=width).splitlines()
    for rank, line in enumerate(lines[-10:], start=1):
        assert line.split()[0] == str(rank)
        assert line.split()[-2:] == ["0.005", f"im/3{rank - 1}.png"]
    assert all(len(line) <= max(width, 90) for line in lines) or width > 110
    assert (LONG in lines[-1]) == (width > 110)
    if width == 110:
        assert lines[-1].count("Home & ") == lines[-1].count("-stick") == 2, "both ends of a name are shown"


def test_a_table_is_as_wide_as_its_content_unless_somebody_says(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    table = new_table("a", ("name", "figure"), left=("name",))
    table.add_row(Name("x" * 200), "0.123456789")
    for columns, whole in ((None, True), ("60", False), ("no", True), ("0", True), ("300", True)):
        monkeypatch.delenv("COLUMNS", raising=False)
        if columns:
            monkeypatch.setenv("COLUMNS", columns)
        print_table(table)
        printed = capsys.readouterr().out
        assert ("x" * 200 in printed) == whole, columns
        assert "0.123456789" in printed


@pytest.mark.parametrize("text", ["女装/外套/大衣/羽绒服", "женская одежда", "plain and rather long"])
@pytest.mark.parametrize("width", range(1, 13))
def test_a_name_that_is_cut_fits(text: str, width: int) -> None:
    from rich.cells import cell_len

    assert cell_len(Name(text).cut(width)) <= width
