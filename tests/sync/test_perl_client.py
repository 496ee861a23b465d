"""Perl's Gearman::Client sees the same through a synchronous forward as directly."""

import json
import subprocess
from pathlib import Path
from typing import Any

from tests.kit.peers import Consumer
from tests.kit.servers import Gearmand
from tests.sync.test_replies import QUEUE, answer, balance, forward

SCRIPT = Path(__file__).with_name("perl_client.pl")

JOBS = [
    *("complete 1", "fail 2", "exception 3", "complete 4"),
    *("u1=complete 5", "u2=fail 6", "u3=exception 7"),
]
"""Each is sent at once with the others; what stands before a "=" is its unique."""


def by_perl(port: int) -> Any:  # noqa: ANN401 - JSON
    """Return what the client tells of each job, and of one that it waits for alone."""
    command = ["perl", str(SCRIPT), str(port), QUEUE.decode(), *JOBS]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_gearman_client_sees_the_same_with_a_relay_as_without(
    gearmand_a: Gearmand, gearmand_b: Gearmand
) -> None:
    """Results, failures, exceptions, status, warnings, data, with a unique and without."""
    with Consumer(gearmand_b.port, QUEUE, answer=answer) as worker:
        direct = by_perl(gearmand_b.port)
        with forward(gearmand_a, gearmand_b) as relay:
            assert by_perl(gearmand_a.port) == direct
            assert balance(relay)["answered"] == len(JOBS) + 1
        assert len(worker.seen) == 2 * (len(JOBS) + 1), "each job runs once, a failed one too"
    outcomes = direct["outcomes"]
    assert direct["do_task"] == "\0result of complete alone"
    assert all({"status", "warning", "data"} <= seen.keys() for seen in outcomes)
    for seen in outcomes:
        end = seen["workload"].split()[0]
        assert {"complete", "fail", "exception"} & seen.keys() == {end}
