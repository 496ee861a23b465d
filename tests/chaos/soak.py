"""Random faults from a seed, while jobs flow both ways through eight forwards.

    make soak JOBS=1000000 FAULTS=200 SEED=1

Four forwards go each way; one each way encrypts anew, and one is synchronous. A line is printed
for each fault and the ledger at the end; the exit code is 0 where nothing was lost. The same seed
gives the same faults in the same order; which job they meet is the machine's affair.
"""

# ruff: noqa: T201 - print is how a command answers

import argparse
import random
import sys
import time
from collections import Counter
from collections.abc import Callable
from typing import NamedTuple

from tests.chaos.site import Plan, Site
from tests.kit.eventually import eventually
from tests.kit.pipe import Pipe
from tests.kit.servers import PersistentGearmand

SYNC_SHARE = 20  # one job in so many is synchronous: each waits for its answer
LANES = 8
LATE = 0.005  # seconds one way to the far site
SHORT = (0.1, 1.5)  # seconds
LONG = (16.0, 19.0)  # seconds: more than the relay waits for a sign of life
OFTEN, SELDOM = 6, 1  # how often a fault is drawn, as against another
STUCK = 240.0  # seconds without progress after which a soak has failed


class Blow(NamedTuple):
    """One fault as drawn: what, where, and for how long."""

    name: str
    side: int  # 0 near, 1 far
    seconds: float


Harm = Callable[[Blow], None]


class Soak:
    """A site, two paths, and the ways to harm them."""

    def __init__(self, jobs: int, seed: int) -> None:
        self.rng = random.Random(seed)
        self.servers = (PersistentGearmand(), PersistentGearmand())
        self.jobs = jobs
        self.kinds: dict[str, Harm] = {
            "relay killed": lambda _: self.site.kill_relay(),
            "relay stopped and started": lambda _: self.site.term_relay(),
            "relay frozen": self.freeze_relay,
            "relay reloaded": self.reload,
            "gearmand killed": self.kill,
            "gearmand stopped and started": self.stop,
            "gearmand frozen": self.freeze,
            "connections reset": lambda blow: self.drop(blow, reset=True),
            "connections closed": lambda blow: self.drop(blow, reset=False),
            "link cut": self.cut,
            "link black": self.blackhole,
            "link slow": self.slow,
            "both links reset": self.drop_both,
            "gearmand frozen long": self.freeze,
            "link black long": self.blackhole,
        }
        self.struck: Counter[str] = Counter()

    def plans(self) -> list[Plan]:
        """Share the jobs out."""
        sync = self.jobs // SYNC_SHARE
        rest, left = divmod(self.jobs - sync, LANES - 1)
        plans = [Plan("ask", sync, kind="sync")]
        for number in range(LANES - 1):
            kind, outward = "sealed" if number in (0, 3) else "plain", number < 3
            count = rest + (left if number == 0 else 0)
            plans.append(Plan(f"q{number}", count, outward=outward, kind=kind))  # type: ignore[arg-type]
        return plans

    def run(self, faults: int) -> bool:
        """Do all of it; return whether nothing was lost."""
        began = time.monotonic()
        near, far = self.servers
        with near, far, Pipe(near.port) as here, Pipe(far.port, delay=LATE) as there:
            self.paths = (here, there)
            with Site(self.servers, self.paths, self.plans()) as self.site:
                for number in range(1, faults + 1):
                    self.await_jobs(number * self.jobs // (faults + 1))
                    self.strike(number, began)
                try:
                    self.site.finish(STUCK)
                except AssertionError as failure:
                    print(failure)
                    return False
                seconds = time.monotonic() - began
                print("\n" + ", ".join(f"{n} x {name}" for name, n in self.struck.most_common()))
                print("\n" + self.site.table())
                print(
                    f"\n{self.jobs} jobs, {faults} faults, {seconds:.0f} s, none lost", flush=True
                )
        return True

    def await_jobs(self, count: int) -> None:
        """Let jobs flow until so many have arrived."""
        eventually(lambda: self.site.arrived >= count, STUCK, what=f"{count} jobs")

    def draw(self) -> Blow:
        """Return the next fault."""
        weights = [SELDOM if name.endswith("long") else OFTEN for name in self.kinds]
        (name,) = self.rng.choices(list(self.kinds), weights)
        seconds = self.rng.uniform(*(LONG if name.endswith("long") else SHORT))
        return Blow(name, self.rng.randrange(2), seconds)

    def strike(self, number: int, began: float) -> None:
        """Do one fault, and print its line."""
        blow, at = self.draw(), time.monotonic() - began
        before = self.site.arrived
        self.kinds[blow.name](blow)
        self.struck[blow.name] += 1
        everywhere = blow.name.startswith(("relay", "both"))
        where = "" if everywhere else f" {('near', 'far')[blow.side]}"
        lasted = time.monotonic() - began - at
        print(
            f"{number:4} {at:7.1f} s  {blow.name + where:36} {lasted:4.1f} s"
            f"  {before:9} jobs there before",
            flush=True,
        )

    # The faults.

    def rest(self, blow: Blow) -> None:
        """Let time pass."""
        end = time.monotonic() + blow.seconds
        eventually(lambda: time.monotonic() > end, blow.seconds + 60)

    def freeze_relay(self, blow: Blow) -> None:
        """SIGSTOP, SIGCONT."""
        self.site.relay.freeze()
        self.rest(blow)
        self.site.relay.thaw()

    def reload(self, blow: Blow) -> None:
        """SIGHUP with another window for some forwards, which start anew."""
        names = [lane.plan.name for lane in self.site.lanes if lane.plan.kind != "sync"]
        chosen = self.rng.sample(names, 3)
        mark = len(self.site.relay.records)
        windows = {name: self.rng.randrange(50, 200) for name in chosen}
        self.site.relay.configure(self.site.configuration(**windows))
        self.site.relay.hup()
        self.site.relay.wait_event("reloaded", 60, mark)
        self.site.strike()
        self.rest(blow)

    def kill(self, blow: Blow) -> None:
        """SIGKILL; its queues are in its file."""
        server = self.servers[blow.side]
        self.site.strike(server)
        server.kill()
        self.rest(blow)
        server.start()

    def stop(self, blow: Blow) -> None:
        """SIGTERM."""
        server = self.servers[blow.side]
        self.site.strike(server)
        server.stop()
        self.rest(blow)
        server.start()

    def freeze(self, blow: Blow) -> None:
        """SIGSTOP, SIGCONT: it may have been asleep for too long."""
        self.site.strike(self.servers[blow.side])
        self.servers[blow.side].freeze()
        self.rest(blow)
        self.servers[blow.side].thaw()

    def drop(self, blow: Blow, *, reset: bool) -> None:
        """End every connection of one path."""
        self.site.strike(self.servers[blow.side])
        self.paths[blow.side].drop(reset)

    def drop_both(self, _: Blow) -> None:
        """End every connection, while confirms are on their way."""
        self.site.strike(*self.servers)
        for path in self.paths:
            path.drop()

    def cut(self, blow: Blow) -> None:
        """End every connection of one path, and let none in."""
        self.site.strike(self.servers[blow.side])
        self.paths[blow.side].cut()
        self.rest(blow)
        self.paths[blow.side].restore()

    def blackhole(self, blow: Blow) -> None:
        """Move no byte, close nothing."""
        self.site.strike(self.servers[blow.side])
        self.paths[blow.side].blackhole()
        self.rest(blow)
        self.paths[blow.side].restore()

    def slow(self, blow: Blow) -> None:
        """Half a second of round trip, and 200 kB a second."""
        path = self.paths[blow.side]
        path.shape(0.25, 200_000.0)
        self.rest(blow)
        path.shape(LATE if blow.side else 0.0)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--jobs", type=int, default=1_000_000)
    parser.add_argument("--faults", type=int, default=200)
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    print(f"seed {options.seed}", flush=True)
    return 0 if Soak(options.jobs, options.seed).run(options.faults) else 1


if __name__ == "__main__":
    sys.exit(main())
