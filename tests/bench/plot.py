"""Pictures of a bench: `make bench-plot`, or `python -m tests.bench.plot bench.json docs`.

Draws the long run of a bench's JSON: what a job costs and what memory is held, over the time.
Exit code 1 where the file has no long run.
"""

import json
import sys
from pathlib import Path
from typing import Any

import matplotlib as mpl

mpl.use("agg")

from matplotlib import pyplot as plt

MIB = 1 << 20


def draw(run: dict[str, Any], machine: dict[str, Any], file: Path) -> None:
    """Draw one long run into a file."""
    points = run["ours"]["series"]
    minutes = [point["at"] / 60 for point in points]
    figure, (cost, memory) = plt.subplots(2, 1, sharex=True, figsize=(8, 5))
    cost.plot(minutes, [point["cost"] for point in points])
    cost.set_ylabel("us of CPU a job")
    memory.plot(minutes, [point["rss"] / MIB for point in points], color="tab:green")
    memory.set_ylabel("RSS, MiB")
    memory.set_xlabel(
        f"minutes at {run['ours']['rate']:,.0f} jobs/s; {machine['cores']} cores of "
        f"{machine['processor']}, Python {machine['python']}"
    )
    for axes in (cost, memory):
        axes.set_ylim(0, 1.2 * axes.dataLim.ymax)
        axes.grid(visible=True, alpha=0.3)
    figure.tight_layout()
    file.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(file, dpi=110)
    plt.close(figure)


def main(source: str = "bench.json", folder: str = "docs") -> int:
    """Draw what there is; return the exit code."""
    bench = json.loads(Path(source).read_text())
    case = bench["cases"].get("soak")
    if case is None:
        sys.stderr.write(f'{source} has no long run: make bench ARGS="soak --soak 1800"\n')
        return 1
    file = Path(folder) / "soak.png"
    draw(case["runs"][-1], bench["machine"], file)
    sys.stdout.write(f"{file}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
