"""Jobs through TLS on both sides: exact sets in every fault, as without it."""

import os
from functools import partial

import pytest

from tests.kit.eventually import eventually
from tests.kit.peers import Consumer, Job, Producer, SyncClient, complete, numbered, submit
from tests.kit.pipe import Pipe
from tests.kit.relay import config
from tests.kit.servers import Geard, Gearmand, Stunnel
from tests.mod_gearman.test_late import OLD, answers, number, plain
from tests.relay.forwarding import HERE, THERE, CheckedRelay, forward, wait_queue
from tests.relay.ledger import Ledger
from tests.relay.test_watch import wait_depths
from tests.tls.ends import VERSIONS, Papers, Tunnels, relay, tls

MIB = 1 << 20


@pytest.mark.parametrize("options", VERSIONS, ids=["1.2", "1.3"])
def test_jobs_of_every_size_arrive_as_exactly_that_set(
    papers: Papers, options: tuple[str, ...]
) -> None:
    """10 MiB in and out among them: nothing is lost, repeated or changed."""
    ledger = Ledger()
    jobs = list(numbered(HERE, 20_000, b"x" * 500))
    jobs += [Job(HERE, b"s%d" % size, os.urandom(size)) for size in range(1, 40_000, 397)]
    jobs += [Job(HERE, b"l%d" % n, os.urandom(10 * MIB)) for n in range(3)]
    with (
        Tunnels(papers, *options) as ends,
        ends.relay() as proxy,
        Consumer(ends.b.port, THERE) as consumer,
    ):
        submit(ends.a.port, ledger.book(jobs))
        ledger.assert_exact(consumer.wait_for(len(jobs)))
        wait_queue(ends.a, total=0)
        counters = proxy.only_stats()["counters"]
    assert counters["confirmed"] == len(jobs)
    assert counters["source_losses"] == counters["target_losses"] == counters["retries"] == 0


def test_sync_jobs_and_replies_of_10_mib(papers: Papers) -> None:
    with (
        Tunnels(papers) as ends,
        ends.relay(**{"async": False, "workers": 10}) as proxy,
        Consumer(ends.b.port, THERE, answer=lambda job: complete(job, job.workload[::-1])),
        SyncClient(ends.a.port) as client,
    ):
        proxy.wait_event("source_up")
        for size in (0, 1, 16_383, 16_384, 65_537, 10 * MIB):
            workload = os.urandom(size)
            assert client.call(HERE, workload)[-1].args[1] == workload[::-1]


@pytest.mark.parametrize("options", VERSIONS, ids=["1.2", "1.3"])
def test_a_stop_under_load_loses_and_repeats_nothing(
    papers: Papers, options: tuple[str, ...]
) -> None:
    """The one way out: what was completed last arrives at the source before the end does."""
    ledger = Ledger()
    with (
        Tunnels(papers, *options) as ends,
        Consumer(ends.b.port, THERE) as consumer,
        ends.relay(window=500) as proxy,
        Producer(ends.a.port, ledger.book(numbered(HERE, 60_000, bytes(300)))) as producer,
    ):
        consumer.wait_for(2000)
        proxy.term()
        assert proxy.wait() == 0
        producer.join()
        wait_queue(ends.a, workers=0)
        left = ends.a.admin.queue(HERE.decode()).total
        assert left
        with Consumer(ends.a.port, HERE) as rest:
            rest.wait_for(left)
        (counters,) = (record["counters"] for record in proxy.events("forward_status"))
        eventually(lambda: len(consumer.seen) >= counters["confirmed"])
        ledger.assert_exact(consumer.seen, rest.seen)
    assert counters["given_back"] == 0


def test_late_checks_and_depths_go_through_tls(papers: Papers) -> None:
    """What the relay says and asks on its own account is no more in plain text than jobs are."""
    with Tunnels(papers) as ends:
        queues = forward(ends.source, ends.target, max_age=60)
        submit(ends.a.port, [plain(1, OLD), plain(2, 0)])
        with CheckedRelay(config(queues, servers=ends.servers(), poll=0.2)) as proxy:
            proxy.wait_counter("answered", 1)
            assert number(answers(ends.a, 1)[0]) == 1
            wait_depths(proxy, 0, 1, 0)


def test_ends_killed_and_cut_under_load_lose_nothing(papers: Papers) -> None:
    """The TLS end and the line before it, at either side."""
    ledger = Ledger()
    total = 60_000
    with (
        Tunnels(papers) as ends,
        Pipe(ends.source.port) as to_source,
        Pipe(ends.target.port) as to_target,
        relay(to_source, to_target, _servers(papers, to_source, to_target), hold=60) as proxy,
        Consumer(ends.b.port, THERE) as consumer,
    ):

        def restart(end: Stunnel) -> None:
            end.kill()
            end.start()

        faults = [
            ("target", partial(restart, ends.target)),
            ("source", partial(restart, ends.source)),
            ("target", partial(to_target.drop, reset=True)),
            ("source", partial(to_source.drop, reset=False)),
        ]
        jobs = ledger.book(numbered(HERE, total, bytes(300)))
        with Producer(ends.a.port, jobs, in_flight=300) as producer:
            for step, (side, fault) in enumerate(faults, 1):
                consumer.wait_for(step * total // 6)
                eventually(lambda: not proxy.only_stats()["reasons"], what="a forward that runs")
                mark = len(proxy.records)
                fault()
                proxy.wait_event(f"{side}_lost", 30.0, mark)
                proxy.wait_event(f"{side}_up", 30.0, mark)
            producer.join()
        wait_queue(ends.a, total=0)
        eventually(lambda: ends.b.admin.queue(THERE.decode()).total == 0)
        difference = ledger.compare(consumer.seen)
        assert not difference.lost, str(difference)
        assert not difference.foreign, str(difference)


def _servers(papers: Papers, *pipes: Pipe) -> dict[str, dict[str, object]]:
    return {pipe.address: tls(papers.ours, papers.client) for pipe in pipes}


def test_a_gearmand_killed_behind_its_stunnel_loses_no_unconfirmed_job(
    papers: Papers, gearmand_a: Gearmand
) -> None:
    """What b had confirmed and not handed out dies with it; all else arrives."""
    ledger = Ledger()
    with (
        Gearmand() as b,
        Stunnel(b.port, papers.server) as end,
        relay(gearmand_a, end, {end.address: tls(papers.ours)}, hold=60) as proxy,
        Producer(gearmand_a.port, ledger.book(numbered(HERE, 30_000)), in_flight=300) as producer,
    ):
        with Consumer(b.port, THERE) as before:
            before.wait_for(5000)
        b.kill()
        proxy.wait_event("target_lost", 30.0)
        confirmed = proxy.only_stats()["counters"]["confirmed"]
        b.start()
        with Consumer(b.port, THERE) as after:
            producer.join()
            wait_queue(gearmand_a, total=0)
            eventually(lambda: b.admin.queue(THERE.decode()).total == 0)
        difference = ledger.compare(before.seen, after.seen)
        assert not difference.foreign, str(difference)
        assert difference.lost.total() <= confirmed - len(before.seen)


def test_through_a_geard_with_tls(
    papers: Papers, gearmand_a: Gearmand, gearmand_b: Gearmand
) -> None:
    """Another implementation of TLS, Python's own, as a target and as a source."""
    ledger = Ledger()
    files = (str(papers.server.key), str(papers.server.cert), str(papers.ours.cert))
    with Geard(*files) as between:
        servers = {between.address: tls(papers.ours, papers.client)}
        key, there = f"{between.address}/{HERE.decode()}", f"{gearmand_b.address}/{THERE.decode()}"
        first = {f"{gearmand_a.address}/{HERE.decode()}": key}
        with (
            CheckedRelay(config({**first, key: there}, servers=servers)) as proxy,
            Consumer(gearmand_b.port, THERE) as consumer,
        ):
            proxy.wait_event("source_up", forward=key)
            submit(gearmand_a.port, ledger.book(numbered(HERE, 3000, bytes(500))))
            submit(gearmand_a.port, ledger.book([Job(HERE, b"large", os.urandom(MIB))]))
            # geard copies what it has of a job with every 4 KiB: of 10 MiB it takes 16 s and more.
            ledger.assert_exact(consumer.wait_for(3001, 120.0))


def test_5_mib_over_2_mbit_are_life(papers: Papers, gearmand_a: Gearmand) -> None:
    """20 seconds in which nothing is heard of the target: encrypted bytes that move are life."""
    ledger = Ledger()
    with (
        Gearmand() as b,
        Stunnel(b.port, papers.server) as end,
        Pipe(end.port) as pipe,
        relay(gearmand_a, pipe, {pipe.address: tls(papers.ours)}) as proxy,
        Consumer(b.port, THERE) as consumer,
    ):
        wait_queue(gearmand_a, workers=1)
        pipe.shape(rate=250_000)
        submit(gearmand_a.port, ledger.book([Job(HERE, b"large", os.urandom(5 * MIB))]))
        ledger.assert_exact(consumer.wait_for(1, deadline=90))
        wait_queue(gearmand_a, total=0)
        counters = proxy.only_stats()["counters"]
    assert counters["source_losses"] == counters["target_losses"] == counters["retries"] == 0
