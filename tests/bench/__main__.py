"""The bench: `make bench`, or `python -m tests.bench`.

Every contender of a case is measured once in each run, in turns, the next run in the other order.
"""

import argparse
import sys
import time
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

from tests.bench.cases import Case, Plan, Readings, choose
from tests.bench.report import document, markdown, table

QUICK = 0.15
"""The share of the jobs with --quick."""


def parser() -> argparse.ArgumentParser:
    """Return the command line."""
    parser = argparse.ArgumentParser(prog="make bench ARGS=", description="Measure the relay.")
    parser.add_argument("cases", nargs="*", help="only these cases; default all")
    parser.add_argument("--runs", type=int, help="runs of each case (default 5)")
    parser.add_argument("--quick", action="store_true", help="two runs of few jobs")
    parser.add_argument("--scale", type=float, help="share of the jobs (default 1)")
    parser.add_argument("--soak", type=float, default=30.0, help="seconds of the case soak")
    parser.add_argument("--json", type=Path, default=Path("bench.json"), help="where to write")
    return parser


def measure(case: Case, runs: int) -> list[Readings]:
    """Run a case."""
    done: list[Readings] = []
    for run in range(min(runs, case.runs or runs)):
        parts = case.parts if run % 2 == 0 else case.parts[::-1]
        readings = {name: reading for part in parts for name, reading in part().items()}
        done.append({name: readings[name] for name in sorted(readings, key=list(readings).index)})
        say(".")
    return [{name: each[name] for name in done[0]} for each in done]


def say(text: str) -> None:
    """Print at once."""
    sys.stdout.write(text)
    sys.stdout.flush()


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, print, write."""
    options = parser().parse_args(arguments)
    scale = options.scale or (QUICK if options.quick else 1.0)
    runs = options.runs or (2 if options.quick else 5)
    try:
        cases = list(choose(Plan(scale, options.soak), options.cases))
    except ValueError as error:
        say(f"{error}\n")
        return 2
    started = time.monotonic()
    page = options.json.with_suffix(".md")
    results = {}
    for case in cases:
        results[case.name] = case, measure(case, runs)
        say("\n" + table(*results[case.name]) + "\n")
        about = {"time": datetime.now(UTC).isoformat(timespec="seconds"), "scale": scale}
        options.json.write_text(document(results, **about))
        page.write_text(markdown(results))
    say(f"{time.monotonic() - started:.0f} s; all of it is in {options.json}, tables in {page}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
