"""SIGHUP: by difference, under load, and never with a bad config."""

import itertools
import subprocess
import threading
from collections import Counter
from collections.abc import Iterator
from typing import Any

from tests.kit.eventually import eventually
from tests.kit.peers import Consumer, Job, Producer, numbered, submit
from tests.kit.relay import Record, Relay, config
from tests.kit.servers import Gearmand, Server
from tests.relay.doubles import Withholds
from tests.relay.forwarding import forward
from tests.relay.forwarding import relay as relay_of
from tests.relay.ledger import Ledger

RELOADS = 200
AHEAD = 3000  # jobs


def settings(source: Gearmand, target: Gearmand, window: int = 1000, **more: Any) -> Record:  # noqa: ANN401 - JSON
    """Return two forwards: `steady` never changes, `moving` has this window."""
    moving = {"remote_queue": f"{target.address}/moving", "window": window}
    queues = {
        f"{source.address}/steady": f"{target.address}/steady",
        f"{source.address}/moving": moving,
        **more,
    }
    return config(queues)


def ports(relay: Relay, server: Server) -> set[str]:
    """Return the relay's own ports on its connections to a server, as `ss` sees them."""
    output = subprocess.run(
        ["ss", "-Htnp", "state", "established", f"dport = :{server.port}"],
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    return {line.split()[2] for line in output.splitlines() if f"pid={relay.pid}," in line}


def reload(relay: Relay) -> Record:
    """Reload and return the record of its outcome."""
    mark = len(relay.records)
    relay.hup()

    def outcome() -> list[Record]:
        return relay.events("reloaded", mark) + relay.events("reload_refused", mark)

    return eventually(outcome, what="an outcome of the reload")[0]


def test_two_hundred_reloads_under_load(gearmand_a: Gearmand, gearmand_b: Gearmand) -> None:
    """Exact sets, unchanged forwards keep their ports, counters never fall."""
    a, b = gearmand_a, gearmand_b
    keys = [f"{a.address}/steady", f"{a.address}/moving"]
    ledgers = {b"steady": Ledger(), b"moving": Ledger()}
    over = threading.Event()

    def jobs(queue: bytes) -> Iterator[Job]:
        """Go on until the last reload is done."""
        endless = numbered(queue, 10_000_000, b"x" * 300)
        return ledgers[queue].book(itertools.takewhile(lambda _: not over.is_set(), endless))

    with (
        Relay(settings(a, b)) as relay,
        Consumer(b.port, b"steady") as steady,
        Consumer(b.port, b"moving") as moving,
    ):
        eventually(lambda: len(relay.events("source_up")) == 2, what="both forwards")
        relay.configure(config({keys[0]: f"{b.address}/steady"}))
        assert reload(relay)["removed"] == [keys[1]]
        relay.wait_event("source_left", forward=keys[1])
        kept = ports(relay, a) | ports(relay, b)
        assert len(kept) == 2
        producers = [Producer(a.port, jobs(b"steady"), 100), Producer(a.port, jobs(b"moving"), 100)]
        received: Counter[str] = Counter()
        for n in range(RELOADS):
            relay.configure(settings(a, b, window=100 + n))
            assert reload(relay)["event"] == "reloaded"
            assert kept <= ports(relay, a) | ports(relay, b)
            for key, status in relay.stats().items() if n % 10 == 0 else ():
                assert status["counters"]["received"] >= received[key]
                received[key] = status["counters"]["received"]
        over.set()
        for producer, consumer in zip(producers, (steady, moving), strict=True):
            producer.join()
            consumer.wait_for(len(producer.handles))
        counters = {key: status["counters"] for key, status in relay.stats().items()}
        assert counters[keys[0]]["given_back"] == counters[keys[0]]["source_losses"] == 0
        assert not relay.events("accounting")
    for consumer, queue in ((steady, b"steady"), (moving, b"moving")):
        ledgers[queue].assert_exact(consumer.seen)


class Load:
    """Jobs at full rate through both forwards until `finish`, which compares the sets."""

    QUEUES = (b"steady", b"moving")

    def __init__(self, source: Gearmand, target: Gearmand) -> None:
        self.over = threading.Event()
        self.ledgers = {queue: Ledger() for queue in self.QUEUES}
        self.consumers = [Consumer(target.port, queue) for queue in self.QUEUES]
        self.producers = [
            Producer(source.port, self.ledgers[queue].book(self._jobs(queue, consumer)), 100)
            for queue, consumer in zip(self.QUEUES, self.consumers, strict=True)
        ]

    def _jobs(self, queue: bytes, consumer: Consumer) -> Iterator[Job]:
        for number, job in enumerate(numbered(queue, 10_000_000, b"x" * 300)):
            while number > len(consumer.seen) + AHEAD and not self.over.is_set():
                self.over.wait(0.001)  # a source that is full soon takes long to empty
            if self.over.is_set():
                return
            yield job

    def wait(self, jobs: int = 500) -> None:
        """Wait until so many more have arrived of each."""
        for consumer in self.consumers:
            consumer.wait_for(len(consumer.seen) + jobs)

    def finish(self) -> None:
        """Stop, wait for what is under way, and compare."""
        self.over.set()
        for producer, consumer in zip(self.producers, self.consumers, strict=True):
            consumer.wait_for(len(producer.join()))
            consumer.stop()
            self.ledgers[consumer.functions[0]].assert_exact(consumer.seen)


def burst(relay: Relay, source: Gearmand, target: Gearmand) -> None:
    """Change the configuration and send SIGHUP, again and again, without waiting."""
    for n in range(RELOADS):
        relay.configure(settings(source, target, window=100 + n))
        relay.hup()


def test_a_burst_of_sighups_under_load(gearmand_a: Gearmand, gearmand_b: Gearmand) -> None:
    """Nobody waits between two: the last configuration is in force in the end, and soon."""
    a, b = gearmand_a, gearmand_b
    steady, moving = f"{a.address}/steady", f"{a.address}/moving"
    with Relay(settings(a, b)) as relay:
        eventually(lambda: len(relay.events("source_up")) == 2, what="both forwards")
        load = Load(a, b)
        load.wait()
        relay.configure(config({steady: f"{b.address}/steady"}))
        reload(relay)
        relay.wait_event("source_left", forward=moving)
        kept = ports(relay, a) | ports(relay, b)
        assert len(kept) == 2
        mark = len(relay.records)
        burst(relay, a, b)
        relay.stats()
        load.wait()
        assert kept <= ports(relay, a) | ports(relay, b)
        assert not relay.events("reload_refused", mark)
        # What is in force would be changed by anything else than what the file says.
        outcome = reload(relay)
        assert (outcome["added"], outcome["changed"], outcome["removed"]) == ([], [], [])
        load.finish()
        counters = relay.stats()[steady]["counters"]
        assert counters["given_back"] == counters["source_losses"] == 0
        assert not relay.events("accounting")


def test_sigterm_in_a_burst_of_sighups(gearmand_a: Gearmand, gearmand_b: Gearmand) -> None:
    """The stop does not wait for all that was asked for before it; nothing is lost or repeated."""
    with Relay(settings(gearmand_a, gearmand_b)) as relay:
        eventually(lambda: len(relay.events("source_up")) == 2, what="both forwards")
        load = Load(gearmand_a, gearmand_b)
        load.wait()
        burst(relay, gearmand_a, gearmand_b)
        mark = len(relay.records)
        relay.term()
        load.over.set()
        assert relay.wait() == 0
        told = [record["event"] for record in relay.records[mark:]]
        assert told.count("reloaded") <= 2, "the one under way, and one for all that came since"
        assert told[-1] == "daemon_stopped"
        relay.restart()
        load.finish()


def test_a_stop_while_a_changed_forward_drains_tells_its_counters_too(gearmand_a: Gearmand) -> None:
    """It has no successor any more; what it has passed still belongs to the accounts."""
    with Withholds() as target, relay_of(gearmand_a, target, window=5) as relay:
        submit(gearmand_a.port, numbered(b"here", 5))
        target.wait_pending(5)
        relay.configure(config(forward(gearmand_a, target, window=7)))
        assert len(reload(relay)["changed"]) == 1
        mark = len(relay.records)
        relay.term()
        relay.wait_event("daemon_stopping", since=mark)
        target.release()
        assert relay.wait() == 0
        (status,) = relay.events("forward_status", mark)
        assert status["counters"]["confirmed"] == 5


def test_twelve_bad_configs_are_refused_and_everything_runs_on(
    gearmand_a: Gearmand, gearmand_b: Gearmand
) -> None:
    good = settings(gearmand_a, gearmand_b)
    own = f"{gearmand_a.address}/steady"
    bad: list[str | Record] = [
        "",
        "{",
        "[]",
        '{"queues": {}} x',
        "{'queues': {}}",
        {"queues": {}},
        {**good, "unknown": 1},
        {**good, "drain": -1},
        settings(gearmand_a, gearmand_b, window=0),
        {"queues": {own: own}},
        {"queues": {"no port here": "at all"}},
        {**good, "log_file": "/nonexistent/folder/log"},
    ]
    with Relay(good) as relay, Consumer(gearmand_b.port, b"steady") as consumer:
        eventually(lambda: len(relay.events("source_up")) == 2, what="both forwards")
        kept = ports(relay, gearmand_a) | ports(relay, gearmand_b)
        for n, broken in enumerate(bad):
            mark = len(relay.records)
            if isinstance(broken, str):
                relay.config_file.write_text(broken)
            else:
                relay.configure(broken)
            assert reload(relay)["event"] == "reload_refused", broken
            assert relay.events("config_problem", mark)
            submit(gearmand_a.port, [Job(b"steady", b"u%d" % n, b"w")])
            consumer.wait_for(n + 1)
        assert ports(relay, gearmand_a) | ports(relay, gearmand_b) == kept


def test_what_was_added_starts_and_what_was_removed_leaves(
    gearmand_a: Gearmand, gearmand_b: Gearmand
) -> None:
    """And the rest keeps its sockets, although the default of window_bytes has changed."""
    queues = {f"{gearmand_a.address}/q{n}": f"{gearmand_b.address}/q{n}" for n in range(20)}
    few = dict(list(queues.items())[:8])
    with Relay(config(few)) as relay:
        eventually(lambda: len(relay.events("source_up")) == 8, what="8 forwards")
        kept = ports(relay, gearmand_a) | ports(relay, gearmand_b)
        relay.configure(config(queues))
        outcome = reload(relay)
        assert sorted(outcome["added"]) == sorted(queues.keys() - few.keys())
        assert (outcome["changed"], outcome["removed"]) == ([], [])
        eventually(lambda: len(relay.events("source_up")) == 20, what="20 forwards")
        relay.configure(config(few))
        assert sorted(reload(relay)["removed"]) == sorted(queues.keys() - few.keys())
        eventually(lambda: len(ports(relay, gearmand_a)) == 8, what="the others have left")
        assert ports(relay, gearmand_a) | ports(relay, gearmand_b) == kept


def test_a_change_back_while_the_old_one_drains(gearmand_a: Gearmand, gearmand_b: Gearmand) -> None:
    """Two reloads in a row: what the last one wants is what runs."""
    with Relay(settings(gearmand_a, gearmand_b)) as relay:
        eventually(lambda: len(relay.events("source_up")) == 2, what="both forwards")
        for window in (5, 1000, 7):
            relay.configure(settings(gearmand_a, gearmand_b, window=window))
            reload(relay)
        with Consumer(gearmand_b.port, b"moving") as consumer:
            submit(gearmand_a.port, numbered(b"moving", 100))
            consumer.wait_for(100)
        assert len(relay.stats()) == 2
