"""The depths of the queues at both ends: shown, heeded, and harmless where nobody tells them."""

from pathlib import Path
from random import Random

import gevent

from gevproxy.config.model import Config, ForwardConfig, QueueAddress
from gevproxy.gearman import Server
from gevproxy.log import EventLog, open_log
from gevproxy.watch import Watch
from tests.kit.eventually import eventually
from tests.kit.peers import Consumer, Job, numbered, submit
from tests.kit.ports import free_port
from tests.kit.relay import config
from tests.kit.scripted import ScriptedServer
from tests.kit.servers import Geard, Gearmand
from tests.kit.servers import Server as JobServer
from tests.relay.forwarding import HERE, THERE, CheckedRelay, forward, wait_queue

NAMES = ("source_waiting", "target_waiting", "target_workers")


def watching(source: JobServer, target: JobServer, poll: float, **options: object) -> CheckedRelay:
    return CheckedRelay(config(forward(source, target, **options), poll=poll))


def wait_depths(relay: CheckedRelay, *depths: int | None) -> None:
    def shown() -> bool:
        status = relay.only_stats()
        return tuple(status.get(name) for name in NAMES) == depths

    eventually(shown, 20.0, 0.1, what=f"depths {depths}")


def test_depths_of_both_ends_are_shown(gearmand_a: Gearmand, gearmand_b: Gearmand) -> None:
    """Among thousands of queues; running jobs do not wait."""
    submit(gearmand_b.port, (job for n in range(3000) for job in numbered(b"q%d" % n, 1)))
    with watching(gearmand_a, gearmand_b, 0.2) as relay:
        wait_depths(relay, 0, 0, 0)
        submit(gearmand_a.port, numbered(HERE, 7))
        wait_depths(relay, 0, 7, 0)
        with Consumer(gearmand_b.port, THERE, answer=lambda _: [], window=3) as worker:
            worker.wait_for(3)
            eventually(lambda: relay.only_stats().get("target_workers") == 1, 20.0, 0.1)
        relay.configure(config(forward(gearmand_a, gearmand_b), poll=0))
        relay.hup()
        wait_depths(relay, None, None, None)


def test_no_more_is_taken_while_the_target_has_enough(
    gearmand_a: Gearmand, gearmand_b: Gearmand
) -> None:
    """The rest waits at the source; every job arrives once there is room."""
    # With uniques of their own, or what comes while they wait would be taken for them.
    submit(gearmand_b.port, [Job(THERE, b"first%d" % n, b"w") for n in range(11)])
    with watching(gearmand_a, gearmand_b, 0.2, max_target_waiting=10) as relay:
        relay.wait_reason("target queue holds more than 10 jobs (max_target_waiting)")
        submit(gearmand_a.port, numbered(HERE, 20))
        wait_depths(relay, 20, 11, 0)
        counters = relay.only_stats()["counters"]
        assert counters["received"] == 0
        assert relay.only_stats()["not_running"] < 1.5
        with Consumer(gearmand_b.port, THERE) as worker:
            worker.wait_for(31)
        wait_queue(gearmand_a, total=0)
        eventually(lambda: not relay.only_stats()["reasons"], 20.0, 0.1)


def test_geard_is_asked_too(gearmand_a: Gearmand) -> None:
    with Geard() as geard, watching(gearmand_a, geard, 0.2) as relay:
        relay.wait_event("target_up")
        wait_depths(relay, 0, 0, 0)


def test_a_server_that_does_not_answer_is_told_of_once_and_harms_nobody(
    gearmand_a: Gearmand,
) -> None:
    """It behaves but for the text protocol; jobs pass, and its figures are left out."""
    with (
        ScriptedServer() as target,
        CheckedRelay(config(forward(gearmand_a, target, max_target_waiting=0), poll=0.2)) as relay,
    ):
        submit(gearmand_a.port, numbered(HERE, 5))
        relay.wait_counter("confirmed", 5)
        relay.wait_event("watch_failed", 60.0, server=target.address)
        wait_depths(relay, 0, None, None)
        asked = len(target.connected_at)
        eventually(lambda: len(target.connected_at) > asked, 60.0, what="another question")
        assert len(relay.events("watch_failed")) == 1
        submit(gearmand_a.port, numbered(HERE, 5))
        relay.wait_counter("confirmed", 10)


class Hasty(Random):
    """Makes every wait a hundred times shorter, and counts them."""

    waits = 0

    def uniform(self, a: float, b: float) -> float:
        """Return a hundredth of what others do."""
        self.waits += 1
        return super().uniform(a, b) / 100


def test_a_server_that_is_away_is_tried_at_every_poll(tmp_path: Path) -> None:
    """It comes back with all that has waited for it: a limit is to hold from then on."""
    # Waiting longer and longer it would take minutes.
    assert "refused" in asked_in_vain(tmp_path, Server("127.0.0.1", free_port()), 50)


def test_an_error_that_nobody_expects_is_no_end_of_asking(tmp_path: Path) -> None:
    """The figures go as ever, or a forward that they hold back would never run again."""
    assert "port must be" in asked_in_vain(tmp_path, Server("127.0.0.1", 70_000), 10)


def asked_in_vain(folder: Path, server: Server, times: int) -> str:
    """Ask a server so often; return what the log says once nothing is told any more."""
    rng = Hasty()
    forgotten: list[Server] = []
    log = EventLog(open_log(str(folder / "log")))
    watch = Watch(lambda server, told: forgotten.append(server) if not told else None, log, rng)
    forward = ForwardConfig(source=QueueAddress(server, "a"), target=QueueAddress(server, "b"))
    watch.follow(Config(forwards=(forward,), poll=1.0), {})
    with gevent.Timeout(30):
        while rng.waits < times:
            gevent.sleep(0.01)
    watch.stop()
    assert forgotten == [server]
    text = (folder / "log").read_text()
    assert "watch_failed" in text
    return text
