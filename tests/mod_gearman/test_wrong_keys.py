"""A wrong key costs ten dead letters and no more, and nothing is lost."""

import json
import random
from collections import Counter

from tests.kit.eventually import eventually
from tests.kit.peers import Consumer, Job, seen, submit
from tests.kit.relay import Record, Relay, config
from tests.kit.servers import Gearmand
from tests.mod_gearman.letters import letters, replay
from tests.mod_gearman.payloads import CHECK, encrypt
from tests.status.harness import QUEUE as STATUS
from tests.status.harness import check

QUEUE = "service"
RIGHT, WRONG = "the right s3cret", "a wrong s3cret"
LETTERS = 10  # refusals in a row that may each end a job


def settings(source: Gearmand, target: Gearmand, key: str) -> Record:
    """Return a decrypting forward, one that has no key and runs, and a status queue."""
    forward = {"remote_queue": f"{target.address}/{QUEUE}", "decrypt": key, "payload": "raw"}
    queues = {f"{source.address}/{QUEUE}": forward, f"{source.address}/b": f"{target.address}/b"}
    return config(queues, status_queue=f"{source.address}/{STATUS.decode()}")


def text(n: int) -> bytes:
    return CHECK.replace(b"svc00152", b"svc%05d" % n)


def checks(count: int) -> list[Job]:
    """Return encrypted checks, different in unique and text."""
    return [Job(QUEUE.encode(), b"u%d" % n, encrypt(RIGHT.encode(), text(n))) for n in range(count)]


def test_a_wrong_key_is_mended_and_nothing_is_lost(
    gearmand_a: Gearmand, gearmand_b: Gearmand
) -> None:
    """Ten letters, the rest at the source, the reason in log and status; a replay brings all."""
    count = 300
    key = f"{gearmand_a.address}/{QUEUE}"
    submit(gearmand_a.port, checks(count))
    with Relay(settings(gearmand_a, gearmand_b, WRONG)) as relay:
        blocked = relay.wait_event("forward_blocked", forward=key)
        assert blocked["message"].startswith("stage decrypt: wrong key?")
        relay.wait_event("source_left")
        eventually(
            lambda: gearmand_a.admin.queue(QUEUE) == (count - LETTERS, 0, 0), what="the rest at A"
        )
        counters = relay.stats()[key]["counters"]
        assert counters["dead_lettered"] == LETTERS
        (reason,) = relay.stats()[key]["reasons"]
        assert reason.startswith("blocked: stage decrypt: wrong key?")
        line = check(gearmand_a.port).decode()
        assert line.startswith("1:WARNING - "), line
        message, _, metrics = line.partition("|")
        assert f" {key}: blocked: stage decrypt: wrong key?" in message
        assert f"{gearmand_a.address}/b" not in message
        assert f" '{key}::dead_letters'={LETTERS}c;;;" in metrics
        everything = line + json.dumps(relay.records)
        for hidden in (RIGHT, WRONG, "host012", checks(1)[0].workload.decode()[:60]):
            assert hidden not in everything
        relay.configure(settings(gearmand_a, gearmand_b, RIGHT))
        relay.hup()
        with Consumer(gearmand_b.port, QUEUE.encode()) as consumer:
            consumer.wait_for(count - LETTERS)
            assert replay(relay) == 0
            consumer.wait_for(count)
        expected = Counter(seen(Job(b"", b"u%d" % n, text(n))) for n in range(count))
        assert Counter(consumer.seen) == expected
        assert relay.stats()[key]["unaccounted"] == 0
        assert not letters(relay)
        eventually(
            lambda: check(gearmand_a.port).startswith(b"0:OK - "), what="a check that is content"
        )


def test_good_jobs_among_bad_ones_pass(gearmand_a: Gearmand, gearmand_b: Gearmand) -> None:
    """10,000 random and truncated payloads, every fifth one good: delivered or a dead letter."""
    rng = random.Random(5)
    good = dict(enumerate(checks(50)))
    jobs = []
    for n in range(10_000):
        if n % 5 == 0:
            jobs.append(good[n // 5 % 50]._replace(unique=b"g%d" % n))
        elif n % 2:
            jobs.append(Job(QUEUE.encode(), b"b%d" % n, rng.randbytes(rng.randrange(300))))
        else:
            whole = good[n % 50].workload
            jobs.append(Job(QUEUE.encode(), b"b%d" % n, whole[: rng.randrange(len(whole))]))
    key = f"{gearmand_a.address}/{QUEUE}"
    with (
        Relay(settings(gearmand_a, gearmand_b, RIGHT)) as relay,
        Consumer(gearmand_b.port, QUEUE.encode()) as consumer,
    ):
        submit(gearmand_a.port, jobs)

        def done() -> Record | None:
            status = relay.stats()[key]
            counters: Record = status["counters"]
            ended = counters["confirmed"] + counters["dead_lettered"]
            return counters if ended == len(jobs) and not status["held"] else None

        counters = eventually(done, 90.0, what="an end of every job")
        assert counters is not None
        delivered, buried = (
            Counter(consumer.uniques),
            Counter(letter["unique"].encode() for letter in letters(relay)),
        )
        assert delivered + buried == Counter(job.unique for job in jobs)
        assert set(good_uniques(jobs)) <= set(delivered)


def good_uniques(jobs: list[Job]) -> list[bytes]:
    return [job.unique for n, job in enumerate(jobs) if n % 5 == 0]
