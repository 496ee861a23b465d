"""CONTRIBUTING.md tells the truth about the house and about the tests of each row."""

import re
from pathlib import Path

import pytest

from tests.test_imports import FILES, FLOORS

ROOT = Path(__file__).parents[1]
TEXT = (ROOT / "CONTRIBUTING.md").read_text()
ROWS = re.findall(r"^\| (S?\d+) \|.*\|([^|]*)\|$", TEXT.split("## One forward")[1], re.MULTILINE)
CITED = [(row, test) for row, cell in ROWS for test in re.findall(r"`([^`]+)`", cell)]
HOUSE = TEXT.split("## The house")[1].split("## One forward")[0]


def test_every_row_is_tested() -> None:
    rows = [*map(str, range(1, 19)), *(f"S{number}" for number in range(1, 11))]
    assert [row for row, _ in ROWS] == rows
    assert {row for row, _ in CITED} == set(rows)


@pytest.mark.parametrize(("row", "test"), CITED)
def test_a_row_is_tested_where_it_says(row: str, test: str) -> None:
    """Either by the test that is named, or by tests that are called by the row."""
    file, _, name = test.partition("::")
    by_row = rf"test_\w*{row.lower() if row.startswith('S') else f'row_{row}'}_\w+"
    assert re.search(rf"^def {name or by_row}\(", (ROOT / "tests" / file).read_text(), re.MULTILINE)


@pytest.mark.parametrize("module", [name for name in FLOORS if name in FILES and "." in name])
def test_every_room_is_in_the_house(module: str) -> None:
    path = FILES[module].relative_to(ROOT / "gevproxy")
    if path.name == "__init__.py":
        assert path.parent.name in HOUSE
    else:
        assert f"{path.name}`" in HOUSE
