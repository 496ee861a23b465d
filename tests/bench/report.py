"""What the bench says: tables for a person and for a page, a JSON file for everything else."""

import json
import os
import platform
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median
from typing import Any

from tests.bench.cases import Case, Figure, Readings

MIB = 1 << 20


@dataclass(frozen=True, slots=True)
class Spread:
    """What several runs have shown."""

    median: float
    least: float
    most: float

    @classmethod
    def of(cls, values: Sequence[float]) -> "Spread":
        """Return the spread of values."""
        return cls(median(values), min(values), max(values))

    def text(self, form: str = ".2f") -> str:
        """Return it as "median (least..most)"."""
        least, most = format(self.least, form), format(self.most, form)
        return f"{self.median:{form}} ({least}..{most})"


def verdict(figure: Figure, spread: Spread) -> str:
    """Say whether a figure keeps its limit, by the median."""
    if figure.least is not None:
        kept = spread.median >= figure.least
        limit = f"at least {figure.least:g}"
    elif figure.most is not None:
        kept = spread.median <= figure.most
        limit = f"at most {figure.most:g}"
    else:
        return ""
    return f"{limit}: {'kept' if kept else 'MISSED'}"


def figures(case: Case, runs: Sequence[Readings]) -> Iterator[tuple[Figure, Spread]]:
    """Yield each figure of a case with its spread."""
    for figure in case.figures:
        yield figure, Spread.of([figure.of(run) for run in runs])


def table(case: Case, runs: Sequence[Readings]) -> str:
    """Return a case as text."""
    lines = [f"{case.name}: {case.what}", ""]
    lines.append(f"  {'':22}{'jobs/s':>32}{'us of CPU a job':>26}{'peak RSS':>10}")
    for name in runs[0]:
        rates = Spread.of([run[name].rate for run in runs]).text(",.0f")
        costs = Spread.of([run[name].cost for run in runs]).text()
        rss = max(run[name].rss for run in runs) / MIB
        lines.append(
            f"  {name:22}{rates:>32}{costs if runs[0][name].cpu else '-':>26}"
            + (f"{rss:6.0f} MiB" if rss else "")
        )
    lines.append("")
    for figure, spread in figures(case, runs):
        text = f"{spread.text()} {figure.unit}"
        lines.append(f"  {figure.what:62} {text:28} {verdict(figure, spread)}".rstrip())
    return "\n".join(lines) + "\n"


def markdown(results: Mapping[str, tuple[Case, Sequence[Readings]]]) -> str:
    """Return all figures, and the readings behind them, as the tables of a page."""
    lines = ["| what | seen (least..most) | limit |", "|---|---|---|"]
    rows = ["| case | who | jobs/s | us of CPU a job |", "|---|---|---|---|"]
    for name, (case, runs) in results.items():
        for figure, spread in figures(case, runs):
            unit = "" if figure.unit == "x" else f" {figure.unit}"
            seen = f"{spread.text()}{unit}"
            lines.append(f"| {name}: {figure.what} | {seen} | {verdict(figure, spread)} |")
        for who in runs[0]:
            rate = median(run[who].rate for run in runs)
            used = f"{median(run[who].cost for run in runs):.2f}" if runs[0][who].cpu else ""
            rows.append(f"| {name} | {who} | {rate:,.0f} | {used} |")
    return "\n".join([*lines, "", *rows]) + "\n"


def machine() -> dict[str, object]:
    """Describe where this ran."""
    model = [
        line.partition(":")[2].strip()
        for line in Path("/proc/cpuinfo").read_text().splitlines()
        if line.startswith("model name")
    ]
    return {
        "cores": os.cpu_count(),
        "processor": model[0] if model else platform.machine(),
        "kernel": platform.release(),
        "python": platform.python_version(),
    }


def document(results: Mapping[str, tuple[Case, Sequence[Readings]]], **about: object) -> str:
    """Return everything as JSON: each reading, and each figure with its limit."""
    cases: dict[str, Any] = {}
    for name, (case, runs) in results.items():
        cases[name] = {
            "what": case.what,
            "runs": [
                {who: _reading(reading) for who, reading in readings.items()} for readings in runs
            ],
            "figures": [
                {
                    "what": figure.what,
                    "unit": figure.unit,
                    "least": figure.least,
                    "most": figure.most,
                    "spread": asdict(spread),
                }
                for figure, spread in figures(case, runs)
            ],
        }
    return json.dumps({**about, "machine": machine(), "cases": cases}, indent=1) + "\n"


def _reading(reading: Any) -> dict[str, Any]:  # noqa: ANN401 - a Reading, of which asdict is made
    fields = asdict(reading)
    fields["series"] = [point._asdict() for point in reading.series]
    return {**fields, "rate": reading.rate, "cost": reading.cost}
