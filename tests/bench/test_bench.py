"""The bench itself does not rot: its parts run end to end with few jobs. No time is asserted."""

import json
from pathlib import Path

import pytest

from tests.bench.__main__ import main
from tests.bench.cases import CASES, Figure, Plan, choose
from tests.bench.measure import Mark, Reading, span
from tests.bench.report import Spread, verdict


def test_plain_from_the_command_to_the_file(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "bench.json"
    assert main(["plain", "--runs", "2", "--scale", "0.02", "--json", str(file)]) == 0
    text = capsys.readouterr().out
    assert "CPU per job: ours / bare" in text
    assert "at most 2" in text
    case = json.loads(file.read_text())["cases"]["plain"]
    assert [list(run) for run in case["runs"]] == [["ours", "bare", "one by one"]] * 2
    for run in case["runs"]:
        assert all(reading["jobs"] > 0 and reading["cpu"] > 0 for reading in run.values())
    assert len(case["figures"]) == 3
    page = file.with_suffix(".md").read_text()
    assert "| plain: CPU per job: ours / bare | " in page
    assert "| plain | one by one | " in page


@pytest.mark.parametrize("name", ["trickle", "sync", "tls"])
def test_cases_with_peers_at_work(name: str, tmp_path: Path) -> None:
    file = tmp_path / "bench.json"
    assert main([name, "--runs", "1", "--scale", "0.1", "--json", str(file)]) == 0
    (run,) = json.loads(file.read_text())["cases"][name]["runs"]
    assert all(reading["jobs"] > 0 for reading in run.values())


def test_every_case_has_a_name_of_its_own() -> None:
    assert len({case.name for case in choose(Plan(), [])}) == len(CASES)
    assert [case.name for case in choose(Plan(), ["sync", "plain"])] == ["plain", "sync"]
    with pytest.raises(ValueError, match="no such case: none"):
        list(choose(Plan(), ["none"]))


def test_a_limit_is_kept_or_missed_by_the_median() -> None:
    spread = Spread.of([1.0, 3.0, 2.0])
    assert spread == Spread(2.0, 1.0, 3.0)
    assert verdict(Figure("f", lambda _: 0.0, most=2.0), spread) == "at most 2: kept"
    assert verdict(Figure("f", lambda _: 0.0, least=2.5), spread) == "at least 2.5: MISSED"
    assert verdict(Figure("f", lambda _: 0.0), spread) == ""


def test_a_reading_leaves_out_warm_up_and_tail() -> None:
    marks = [Mark(jobs, jobs / 100, jobs / 1000, 0.0, 0) for jobs in range(0, 1201, 50)]
    first, last = span(marks, 200, 1200)
    assert (first.jobs, last.jobs) == (200, 1150)
    assert span([marks[0], marks[-1]], 200, 1200) == (marks[0], marks[-1])


def test_a_reading_is_a_rate_and_a_cost() -> None:
    reading = Reading(jobs=1000, seconds=2.0, cpu=0.005)
    assert (reading.rate, reading.cost) == (500.0, 5.0)
