"""Jobs for a relay in a bed, sent and taken from the bed's own network namespace.

    nsenter --net --target PID  python -m tests.appliance.traffic VERB ...

    submit PORT QUEUE COUNT PREFIX          send background jobs, with a unique each
    trickle PORT QUEUE COUNT PREFIX         the same, little by little; at once when stdin ends
    take PORT QUEUE COUNT PREFIX            take so many different jobs; print [all, different]
    work PORT QUEUE COUNT PREFIX RESULTS    the same, and send a result for each to a queue
    read PORT QUEUE                         take a job and print its payload

A unique is PREFIX and a number. Jobs of another prefix are taken too and not counted: repeats of
an earlier test may still arrive.

The users of a job server of tests/kit, which know 127.0.0.1 only. `Traffic` starts this script.
"""

import json
import select
import socket
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

from tests.appliance.bed import Bed
from tests.kit.eventually import eventually
from tests.kit.peers import Assigned, Consumer, Job, submit

ROOT = Path(__file__).parents[2]
DEADLINE = 120.0  # seconds in which any of the below is done, a watchdog's 30 s included

BATCH = 50  # jobs
PAUSE = 0.02  # seconds between two batches

SOURCE = 4730  # Debian's gearman-job-server, as it is installed
TARGET = 4731  # gearmand-b.service


class Traffic:
    """Sends and takes jobs in a bed."""

    def __init__(self, bed: Bed) -> None:
        self.bed = bed

    def start(self, *words: str | int) -> "subprocess.Popen[str]":
        """Start a verb in the background: `finish` gives its answer."""
        command = ["nsenter", "--net", "--target", str(self.bed.leader), "--", sys.executable]
        command += ["-m", "tests.appliance.traffic", *map(str, words)]
        pipe = subprocess.PIPE
        return subprocess.Popen(command, cwd=ROOT, stdin=pipe, stdout=pipe, text=True)

    def run(self, *words: str | int) -> str:
        """Carry out a verb and return its answer."""
        return finish(self.start(*words))

    def submit(self, port: int, queue: str, count: int, prefix: str) -> None:
        """Send background jobs."""
        self.run("submit", port, queue, count, prefix)

    def take(self, port: int, queue: str, count: int, prefix: str) -> list[int]:
        """Take so many different jobs; return how many came, and how many were different."""
        return counts(self.start("take", port, queue, count, prefix))


def counts(process: "subprocess.Popen[str]") -> list[int]:
    """Wait for a `take` in the background; return how many came, and how many were different."""
    came, different = json.loads(finish(process))
    return [came, different]


def finish(process: "subprocess.Popen[str]") -> str:
    """End stdin of a verb in the background, wait for it and return its answer."""
    with process:
        answer, _ = process.communicate(timeout=DEADLINE + 30)
    assert process.returncode == 0, answer
    return answer.strip()


def main(words: list[str]) -> None:
    """Carry out one verb."""
    verb, port, queue, *rest = words
    eventually(lambda: _listens(int(port)), DEADLINE, interval=0.05)  # it may just be starting
    if verb == "submit":
        submit(int(port), _jobs(queue, int(rest[0]), rest[1]), DEADLINE)
    elif verb == "trickle":
        _trickle(int(port), _jobs(queue, int(rest[0]), rest[1]))
    elif verb == "read":
        sys.stdout.write(_take(int(port), queue, 1, "")[0].workload.decode())
    else:
        count, prefix, *results = rest
        jobs = _take(int(port), queue, int(count), prefix)
        different = {job.unique: job.workload for job in jobs}
        for name in results:
            submit(int(port), [Job(name.encode(), *item) for item in different.items()], DEADLINE)
        sys.stdout.write(json.dumps([len(jobs), len(different)]))


def _listens(port: int) -> bool:
    with suppress(ConnectionRefusedError), socket.create_connection(("127.0.0.1", port), 10):
        return True
    return False


def _jobs(queue: str, count: int, prefix: str) -> list[Job]:
    names = [f"{prefix}{number}".encode() for number in range(count)]
    return [Job(queue.encode(), name, b"job " + name) for name in names]


def _trickle(port: int, jobs: list[Job]) -> None:
    """Keep jobs coming for as long as whoever started us does something to the relay."""
    while jobs and not select.select([sys.stdin], [], [], PAUSE)[0]:
        submit(port, jobs[:BATCH], DEADLINE)
        del jobs[:BATCH]
    submit(port, jobs, DEADLINE)


def _take(port: int, queue: str, count: int, prefix: str) -> list[Assigned]:
    """Take jobs until so many different ones have come; return all of that prefix."""
    start = prefix.encode()

    def enough() -> bool:
        if consumer.failure:
            raise consumer.failure
        return len({name for name in consumer.uniques if name.startswith(start)}) >= count

    with Consumer(port, queue.encode(), keep_workloads=True) as consumer:
        eventually(enough, DEADLINE, interval=0.1, what=f"{count} different jobs")
    return [job for job in consumer.jobs if job.unique.startswith(start)]


if __name__ == "__main__":
    main(sys.argv[1:])
