"""What is measured: the cases, who takes part in each, and what has to come out.

A figure is computed from the readings of one run alone, so that a disturbance of the machine,
which lasts longer than a run, meets both sides of a ratio. The limits are the promises of the
README; a rate by itself is printed and never judged.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from statistics import median
from typing import Final

from gevproxy.stages.crypto import Encrypt
from tests.bench import bench_stages, live
from tests.bench.measure import (
    HERE,
    WORKLOAD,
    Load,
    Ours,
    Reading,
    Secured,
    Starter,
    bare,
    drain,
    one_by_one,
)
from tests.bench.trickle import trickle

MIB: Final = 1 << 20

SHORT: Final = 0.02
"""Seconds of a round trip over which the bare relay goes as well."""

WIDE: Final = 8000
"""The larger window over a distance, in jobs."""

Readings = Mapping[str, Reading]


@dataclass(frozen=True, slots=True)
class Figure:
    """Something computed from the readings of a run, with the limit that it has to keep."""

    what: str
    of: Callable[[Readings], float]
    least: float | None = None
    most: float | None = None
    unit: str = "x"


@dataclass(frozen=True, slots=True)
class Case:
    """Measurements that belong together. Each of `parts` gives readings by contender."""

    name: str
    what: str
    parts: tuple[Callable[[], Readings], ...]
    figures: tuple[Figure, ...]
    runs: int | None = None  # the most that make sense; None: as many as asked for


@dataclass(frozen=True, slots=True)
class Plan:
    """How much is done: a share of the jobs, and the seconds of the long run."""

    scale: float = 1.0
    soak: float = 30.0

    def jobs(self, count: int) -> int:
        """Return a number of jobs for this plan."""
        return max(50, int(count * self.scale))

    def seconds(self, seconds: float) -> float:
        """Return a time for this plan."""
        return max(1.0, seconds * self.scale)


def part(name: str, start: Starter, load: Load) -> Callable[[], Readings]:
    """Return a measurement of one contender with a full queue."""
    return lambda: {name: drain(start, load)}


def alone(name: str, measure: Callable[[], Reading]) -> Callable[[], Readings]:
    """Return any other measurement of one contender."""
    return lambda: {name: measure()}


def cost(one: str, other: str, most: float | None = None) -> Figure:
    """Return how much more processor time a job takes with one than with another."""
    what = f"CPU per job: {one} / {other}"
    return Figure(what, lambda run: run[one].cost / run[other].cost, most=most)


def rate(one: str, other: str, least: float | None = None) -> Figure:
    """Return how much faster one is than another."""
    what = f"jobs/s: {one} / {other}"
    return Figure(what, lambda run: run[one].rate / run[other].rate, least=least)


def more(name: str, what: str, unit: str, most: float | None = None) -> Figure:
    """Return something that only a certain reading has."""
    return Figure(f"{what}: {name}", lambda run: run[name].more[what], most=most, unit=unit)


def plain(plan: Plan) -> Case:
    """Return the case that all others are compared with."""
    load = Load(jobs=plan.jobs(200_000))
    slow = Load(jobs=plan.jobs(8_000), warmup=200)
    return Case(
        "plain",
        "0.4 KB, asynchronous, no stage, a full queue on loopback",
        (
            part("ours", Ours(), load),
            part("bare", bare(), load),
            part("one by one", one_by_one(), slow),
        ),
        (
            cost("ours", "bare", most=2.0),
            rate("ours", "bare", least=0.7),
            rate("ours", "one by one", least=8.0),
        ),
    )


def payload(plan: Plan) -> Case:
    """Return the sizes; 64 MiB are under way at most, in the bare relay by its window."""
    parts: list[Callable[[], Readings]] = []
    figures: list[Figure] = []
    for name, size, jobs in (("4 KB", 4096, 60_000), ("64 KB", 65536, 6_000), ("1 MiB", MIB, 500)):
        window = min(1000, 64 * MIB // size)
        load = Load(jobs=plan.jobs(jobs), warmup=2 * window, workload=b"x" * size)
        ours, other = f"ours {name}", f"bare {name}"
        parts += part(ours, Ours(), load), part(other, bare(window), load)
        figures += cost(ours, other), rate(ours, other, least=0.7 if size == MIB else None)
    over = Figure(
        "peak RSS over the window's 64 MiB: ours 1 MiB",
        lambda run: run["ours 1 MiB"].rss / MIB - 64,
        most=64,
        unit="MiB",
    )
    return Case("payload", "4 KB, 64 KB, 1 MiB", tuple(parts), (*figures, over))


def stages(plan: Plan) -> Case:
    """Return what Mod-Gearman's texts cost, with a key at either end or a callback."""
    encrypted = Encrypt(b"one key")(bench_stages.TEXT)
    rule = {"pattern": "^result_queue=.*$", "replace": "result_queue=results_special"}
    keys = Ours(decrypt="one key", rewrite=[rule], encrypt="another key")
    callback = Ours(data_callback=f"{HERE}/bench_stages.py:same", payload="raw")
    jobs = plan.jobs(100_000)
    return Case(
        "stages",
        "0.5 KB: decrypt, rewrite and encrypt; a data_callback",
        (
            part("plain", Ours(), Load(jobs=jobs, workload=encrypted)),
            part("stages", keys, Load(jobs=jobs, workload=encrypted)),
            part("callback", callback, Load(jobs=jobs, workload=bench_stages.TEXT)),
        ),
        (
            rate("stages", "plain", least=0.4),
            cost("stages", "plain"),
            rate("callback", "plain"),
            cost("callback", "plain"),
        ),
    )


def tls(plan: Plan) -> Case:
    """Return what TLS costs; the tunnels work on the cores that the job servers have alone."""
    parts: list[Callable[[], Readings]] = []
    figures: list[Figure] = []
    for name, size, jobs in (("0.4 KB", WORKLOAD, 100_000), ("64 KB", 65536, 4_000)):
        load = Load(jobs=plan.jobs(jobs), workload=b"x" * size)
        plain, secured = f"plain {name}", f"TLS {name}"
        parts += part(plain, Ours(), load), part(secured, Secured(), load)
        figures += cost(secured, plain), rate(secured, plain)
    return Case("tls", "TLS at both ends, with stunnels", tuple(parts), tuple(figures))


def distance(plan: Plan) -> Case:
    """Return round trips of 20 and 100 ms at either side, in windows of 1000 and 8000.

    The bare relay goes over 20 ms in the larger window as well: what it cannot do, either, lies
    with the pipe and the servers.
    """
    parts: list[Callable[[], Readings]] = [part("no pipe", Ours(), Load(jobs=plan.jobs(150_000)))]
    figures = [rate("source 0 ms 1000", "no pipe")]
    for side in ("source", "target"):
        for window in (1000, WIDE):
            near = f"{side} 0 ms {window}"
            for trip in (0.0, SHORT, 0.1):
                name = f"{side} {trip * 1000:.0f} ms {window}"
                bound = min(150_000.0, window / trip) if trip else 150_000.0
                load = Load(
                    jobs=plan.jobs(int(bound)),
                    warmup=4 * window,
                    delays=(trip, None) if side == "source" else (None, trip),
                )
                parts.append(part(name, Ours(window=window), load))
                if trip:
                    figures.append(_kept(name, near, window / trip, least=0.8))
                if window == WIDE and trip <= SHORT:
                    parts.append(part(f"bare {name}", bare(window), load))
                    if trip:
                        figures.append(_kept(f"bare {name}", f"bare {near}", window / trip))
    far = Load(jobs=60, warmup=10, delays=(0.02, None))
    parts.append(part("one by one 20 ms", one_by_one(), far))
    figures.append(rate("source 20 ms 1000", "one by one 20 ms"))
    return Case(
        "distance",
        "0.4 KB over pipes that delay; 1000 and 8000 are windows",
        tuple(parts),
        tuple(figures),
        runs=3,
    )


def _kept(name: str, near: str, bound: float, least: float | None = None) -> Figure:
    what = f"jobs/s: {name} / least of {near}, window / round trip"
    return Figure(what, lambda run: run[name].rate / min(run[near].rate, bound), least=least)


def forwards(plan: Plan) -> Case:
    """Return many forwards in one process, busy and idle."""
    parts = []
    for count in (1, 8, 200):
        load = Load(jobs=plan.jobs(200_000), queues=count)
        parts.append(part(f"{count} forwards", Ours(), load))
        parts.append(part(f"bare {count}", bare(), load))
    parts.append(alone("200 idle", partial(live.idle, 200, plan.seconds(10))))
    return Case(
        "forwards",
        "0.4 KB: the same jobs through 1, 8 and 200 forwards; 200 without a job",
        tuple(parts),
        (
            cost("8 forwards", "1 forwards"),
            cost("200 forwards", "1 forwards"),
            cost("bare 200", "bare 1"),
            cost("200 forwards", "bare 200"),
            rate("200 forwards", "1 forwards"),
            rate("200 forwards", "bare 200"),
            more("200 idle", "core", "%", most=1.0),
        ),
    )


def slow(plan: Plan) -> Case:
    """Return a hundred jobs a second, and what each waits for."""
    figures = [
        Figure(
            f"added latency {quantile}: {name}",
            partial(_added, name, f"{quantile}_ms"),
            most=most if name == "ours" else None,
            unit="ms",
        )
        for name in ("ours", "bare")
        for quantile, most in (("p50", 1.0), ("p99", 5.0))
    ]
    return Case(
        "trickle",
        "100 jobs/s, against a worker at the source; the bare relay with a window of 1",
        (partial(trickle, plan.seconds(10)),),
        (*figures, cost("ours", "bare")),
    )


def _added(name: str, quantile: str, run: Readings) -> float:
    return run[name].more[quantile] - run["direct"].more[quantile]


def sync(plan: Plan) -> Case:
    """Return foreground jobs."""
    seconds = plan.seconds(4)
    return Case(
        "sync",
        f"{live.PEERS} clients, each with one foreground job at a time, as many workers",
        (
            alone("direct", partial(live.sync, seconds, relayed=False)),
            alone("ours", partial(live.sync, seconds, relayed=True)),
        ),
        (rate("ours", "direct", least=0.5),),
    )


def million(plan: Plan) -> Case:
    """Return a queue so long that anything that grows with it shows."""
    return Case(
        "million",
        "0.4 KB, a queue of 1,000,000",
        (part("ours", Ours(), Load(jobs=plan.jobs(1_000_000))),),
        (growth("ours"), memory_growth("ours")),
        runs=2,
    )


def soak(plan: Plan) -> Case:
    """Return the long run."""
    return Case(
        "soak",
        f"full rate for {plan.soak:.0f} s",
        (alone("ours", partial(live.soak, plan.soak)),),
        (growth("ours"), memory_growth("ours")),
        runs=1,
    )


def growth(name: str) -> Figure:
    """Return the CPU per job of the last third of a reading to that of the first."""

    def of(run: Readings) -> float:
        costs = [point.cost for point in run[name].series]
        third = max(1, len(costs) // 3)
        return median(costs[-third:]) / median(costs[:third])

    return Figure(f"CPU per job, last third / first third: {name}", of, most=1.15)


def memory_growth(name: str) -> Figure:
    """Return how much memory the last third of a reading needed over the first."""

    def of(run: Readings) -> float:
        sizes = [point.rss / MIB for point in run[name].series]
        third = max(1, len(sizes) // 3)
        return median(sizes[-third:]) - median(sizes[:third])

    return Figure(f"RSS, last third - first third: {name}", of, most=4.0, unit="MiB")


CASES: Final = (plain, payload, stages, tls, distance, forwards, slow, sync, million, soak)


def choose(plan: Plan, names: list[str]) -> Iterator[Case]:
    """Yield the cases of these names, or all. ValueError for a name that is none."""
    cases = {case.name: case for case in (make(plan) for make in CASES)}
    unknown = sorted(set(names) - set(cases))
    if unknown:
        raise ValueError(f"no such case: {', '.join(unknown)}; there are {', '.join(cases)}")
    yield from (case for name, case in cases.items() if name in names or not names)
