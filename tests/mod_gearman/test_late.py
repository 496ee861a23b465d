"""Late checks are not run in vain: each is answered, dropped or kept, and none is lost."""

import base64
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.kit.eventually import eventually
from tests.kit.peers import Consumer, Job, seen, submit
from tests.kit.servers import Gearmand
from tests.mod_gearman.letters import letters
from tests.mod_gearman.payloads import CHECK, RESULT, decrypt, encrypt
from tests.relay.doubles import Withholds
from tests.relay.forwarding import HERE, THERE, CheckedRelay, relay, submits_at, wait_queue

KEY = b"a password"
RESULTS = "check_results"
MAX_AGE = 60.0
OLD = 1000.0  # seconds: late by far


def text(n: int, age: float) -> bytes:
    """Return a check that Naemon wanted so many seconds ago."""
    core_time = b"%f" % (time.time() - age)
    return CHECK.replace(b"svc00152", b"svc%05d" % n).replace(b"1795484776.726245", core_time)


def plain(n: int, age: float) -> Job:
    return Job(HERE, b"u%d" % n, base64.b64encode(text(n, age)))


def opened(payload: bytes) -> bytes:
    return base64.b64decode(payload, validate=True)


def field(content: bytes, name: str) -> bytes:
    """Return a field of a text's header."""
    lines = content.partition(b"\n\n")[0].split(b"\n")
    return dict(line.partition(b"=")[::2] for line in lines)[name.encode()]


def answers(server: Gearmand, count: int, unseal: Callable[[bytes], bytes] = opened) -> list[bytes]:
    """Take so many results off the source's queue."""
    with Consumer(server.port, RESULTS.encode(), keep_workloads=True) as naemon:
        naemon.wait_for(count)
        return [unseal(job.workload) for job in naemon.jobs]


def counted(running: CheckedRelay, **counters: int) -> None:
    """Wait until counters have these values, and nothing is held."""

    def shown() -> bool:
        status = running.only_stats()
        return bool(not status["held"] and status["counters"].items() >= counters.items())

    eventually(shown, 20.0, 0.1, what=f"{counters}")


def number(content: bytes) -> int:
    """Return the number of the check that a text is, or is about."""
    return int(field(content, "service_description").removeprefix(b"svc"))


def test_what_gets_late_while_it_is_held_is_not_sent_again(gearmand_a: Gearmand) -> None:
    """The target takes one and goes without a word; when it is back, the time is up."""
    with Withholds() as target, relay(gearmand_a, target, max_age=MAX_AGE, hold=None) as running:
        submit(gearmand_a.port, [plain(1, MAX_AGE - 8), plain(2, 0)])
        target.wait_pending(2)
        time_is_up = time.monotonic() + 8
        eventually(lambda: time.monotonic() > time_is_up, what="the clock")
        target.drop()
        running.wait_counter("late", 1)
        target.wait_pending(1)
        target.release()
        counted(running, answered=1, confirmed=1, late=1, given_back=0)
        assert [job.unique for job in submits_at(target)] == [b"u1", b"u2", b"u2"]
        assert number(answers(gearmand_a, 1)[0]) == 1


def test_a_late_check_waits_for_the_confirm_of_its_answer(gearmand_b: Gearmand) -> None:
    """The source is cut before it confirms: the check comes again, and is answered again."""
    with Withholds() as source, relay(source, gearmand_b, max_age=MAX_AGE) as running:
        running.wait_event("source_up")
        source.offer(plain(1, OLD))
        source.wait_pending(1)
        assert running.only_stats()["held"] == 1
        assert not source.completed
        source.drop()
        running.wait_event("source_lost")
        source.wait_pending(1)
        assert not source.completed
        source.release()
        counted(running, answered=1, given_back=1, late=2)
        eventually(lambda: len(source.completed) == 1, what="a completion")
        first, second = submits_at(source)
        assert first.unique == second.unique
        assert first.function == second.function == RESULTS.encode()


@pytest.mark.parametrize(
    ("on_late", "counter"), [("drop", "dropped"), ("dead_letter", "dead_lettered")]
)
def test_late_checks_are_dropped_or_kept(
    gearmand_a: Gearmand, gearmand_b: Gearmand, on_late: str, counter: str
) -> None:
    """More in a row than refusals may be: a late check is none."""
    with relay(gearmand_a, gearmand_b, max_age=MAX_AGE, on_late=on_late) as running:
        submit(gearmand_a.port, [plain(n, OLD) for n in range(20)])
        counted(running, **{counter: 20, "late": 20, "answered": 0, "refused": 0})
        wait_queue(gearmand_a, total=0)
        assert gearmand_a.admin.queue(RESULTS).total == 0
        record = running.wait_event("late_check")
        assert record["message"].startswith("older than 60 s: ")
        kept = letters(running)
        assert len(kept) == (20 if on_late == "dead_letter" else 0)
        assert {letter["reason"] for letter in kept} <= {"late check: older than 60 s"}


def test_what_has_no_age_passes(gearmand_a: Gearmand, gearmand_b: Gearmand) -> None:
    """A core_time in the future is age 0; what cannot be read is told of, once."""
    texts = [text(1, -OLD), RESULT, CHECK.replace(b"core_time", b"some_time"), b"no text"]
    payloads = [*map(base64.b64encode, texts), encrypt(KEY, text(2, OLD)), b"no base64"]
    jobs = [Job(HERE, b"u%d" % n, payload) for n, payload in enumerate(payloads)]
    with (
        relay(gearmand_a, gearmand_b, max_age=MAX_AGE) as running,
        Consumer(gearmand_b.port, THERE) as worker,
    ):
        submit(gearmand_a.port, jobs)
        worker.wait_for(len(jobs))
        assert worker.seen == [seen(job) for job in jobs]
        counted(running, confirmed=len(jobs), late=0)
        running.wait_event("age_unknown")


def test_answers_that_the_source_refuses_block_and_nothing_is_lost(
    gearmand_a: Gearmand, gearmand_b: Gearmand
) -> None:
    """Ten become dead letters; with room for results again, the rest is answered."""
    submit(gearmand_a.port, [Job(RESULTS.encode(), b"r", b"")])
    gearmand_a.admin.maxqueue(RESULTS, 1)
    with relay(gearmand_a, gearmand_b, max_age=MAX_AGE) as running:
        submit(gearmand_a.port, [plain(n, OLD) for n in range(15)])
        reason = "blocked: source refused the answer to a late check: QUEUE_ERROR"
        running.wait_reason(reason)
        wait_queue(gearmand_a, total=5, running=0)
        assert len(letters(running)) == 10
        gearmand_a.admin.maxqueue(RESULTS, 0)
        running.wait_event("forward_unblocked", 20.0)
        counted(running, answered=5, dead_lettered=10)
        assert len(answers(gearmand_a, 6, bytes)) == 6


def test_a_new_key_is_used_for_the_answer_after_a_reload(
    gearmand_a: Gearmand, gearmand_b: Gearmand, tmp_path: Path
) -> None:
    """The old one stays in the list, and each check is answered under its own."""
    file = tmp_path / "key"
    file.write_bytes(b"first\n")
    file.chmod(0o600)
    with relay(gearmand_a, gearmand_b, max_age=MAX_AGE, decrypt=[f"file:{file}"]) as running:
        submit(gearmand_a.port, [Job(HERE, b"u1", encrypt(b"first", text(1, OLD)))])
        counted(running, answered=1)
        file.write_bytes(b"second\n")
        running.hup()
        running.wait_event("reloaded")
        submit(gearmand_a.port, [Job(HERE, b"u2", encrypt(b"second", text(2, OLD)))])
        counted(running, answered=2)
        assert len(running.events("source_up")) == 1
    first, second = answers(gearmand_a, 2, bytes)
    assert number(decrypt(b"first", first)) == 1
    assert number(decrypt(b"second", second)) == 2
