"""Tables fit the width there is, lose no number, and take cells for plain text."""

import pytest
from rich.cells import cell_len

from frozen_glyph.cli.layout import FittedTable
from frozen_glyph.cli.terminal import show
from frozen_glyph.errors import printable

HEADERS = ["stage", *(f"measure {number}" for number in range(9))]
ROWS = [[str(row), *(f"{10**15 + 1000 * row + column:,}" for column in range(9))] for row in range(1, 4)]


@pytest.fixture
def lines(monkeypatch, capsys):
    """``lines(width, *parts)``: what ``show`` prints where the environment says that width; None: says nothing."""

    def lines(width, *parts):
        monkeypatch.delenv("COLUMNS", raising=False)
        if width is not None:
            monkeypatch.setenv("COLUMNS", str(width))
        show(list(parts))
        return capsys.readouterr().out.splitlines()

    return lines


@pytest.mark.parametrize("width", [30, 60, 80, 120, 317])
def test_every_number_is_whole_beside_its_row_and_below_its_header(lines, width):
    shown = lines(width, FittedTable("a table", HEADERS, ROWS))
    assert max(map(cell_len, shown)) <= width
    assert shown[0] == "a table"
    for row in ROWS:
        cells = [cell for line in shown if line.split()[:1] == row[:1] for cell in line.split()[1:]]
        assert cells == row[1:]
    headers = " ".join(line.removeprefix("stage") for line in shown if line.startswith("stage"))
    assert headers.split() == " ".join(HEADERS[1:]).split()


def test_a_table_stays_one_as_long_as_it_fits(lines):
    table = FittedTable("", HEADERS, ROWS)
    width = max(map(cell_len, lines(1000, table)))
    assert len(lines(width, table)) == len(ROWS) + 2
    assert len(lines(width - 1, table)) > len(ROWS) + 2


@pytest.mark.parametrize("width", [60, 80])
def test_long_names_are_broken_and_the_numbers_beside_them_are_not(lines, width):
    name = "a-folder-of-a-long-name/" * 6
    shown = lines(width, FittedTable("", ["expert", "parameters", "from"], [[name, "1,234,567,890", name]]))
    assert max(map(cell_len, shown)) <= width
    assert sum("1,234,567,890" in line for line in shown) == 1
    assert "".join(shown).count("/") == 3 * name.count("/")  # the first column is repeated


def test_totals_are_in_every_part(lines):
    shown = lines(60, FittedTable("", HEADERS, ROWS, ["all", *ROWS[-1][1:]]))
    cells = [cell for line in shown if line.startswith("all") for cell in line.split()[1:]]
    assert cells == ROWS[-1][1:]


@pytest.mark.parametrize(("columns", "width"), [(None, 120), ("0", 120), ("wide", 120), ("72", 72)])
def test_without_a_terminal_columns_is_obeyed_and_120_the_default(lines, columns, width):
    table = FittedTable("", ["stage", *"abcdefghijklmnopqrstuvwxyz"], [["1", *["123,456"] * 26]])
    longest = max(map(cell_len, lines(columns, table)))
    assert width - len("  123,456") < longest <= width


@pytest.mark.parametrize("name", ["ru[v2]", "[/a]", "[bold]b[/bold]", ":smile:", r"a\[b"])
def test_markup_in_names_is_text(lines, name):
    shown = lines(80, FittedTable(name, [name, "loss"], [[name, "1.5"]], [name, ""]), name)
    assert sum(name in line for line in shown) == 5


def test_names_do_not_command_the_terminal(lines):
    shown = lines(80, FittedTable("", ["expert"] * 2, [["ru\x1b[31m\n", "\x1b]0;title\x07"]]), "ru\x9b1m \x1b[2J")
    assert shown[-2:] == [r"ru\x1b[31m\n  \x1b]0;title\x07", r"ru\x9b1m \x1b[2J"]
    assert printable("Кот 猫 é") == "Кот 猫 é"
