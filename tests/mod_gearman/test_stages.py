"""Payloads arrive byte-exact but for what was asked."""

import json
from base64 import b64encode
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import pytest

from tests.kit.peers import Assigned, Consumer, Job, seen, submit
from tests.kit.relay import Record, Relay, config
from tests.kit.servers import Gearmand
from tests.mod_gearman.payloads import CHECK, RESULT, UNIQUE, decrypt, encrypt, large

QUEUE = "hostgroup_network_b"
OURS, THEIRS = b"our password", b"a remote password of more than 32 bytes"
BLOCKING = """
import time
def slow(data, job):
    end = time.perf_counter() + 0.3
    while time.perf_counter() < end:
        pass
    return data
"""


@contextmanager
def relayed(
    source: Gearmand, target: Gearmand, options: Record, *jobs: Job
) -> Iterator[list[Assigned]]:
    """Send jobs through a forward with these options; give what arrives, in order."""
    forward = {"remote_queue": f"{target.address}/{QUEUE}", **options}
    with (
        Relay(config({f"{source.address}/{QUEUE}": forward})) as relay,
        Consumer(target.port, QUEUE.encode(), keep_workloads=True) as consumer,
    ):
        submit(source.port, jobs)
        consumer.wait_for(len(jobs))
        yield consumer.jobs
        (status,) = relay.stats().values()
        assert status["unaccounted"] == status["held"] == 0


def job(payload: bytes, unique: bytes = b"0123456789ABCDEF0123456789ABCDEF") -> Job:
    return Job(QUEUE.encode(), unique, payload)


class Route(NamedTuple):
    """What a forward is told, what a result is packed as on either side of it, and its unique."""

    options: Record
    sent: Callable[[bytes], bytes]
    arrives: Callable[[bytes], bytes]
    unique: bytes = UNIQUE


def ours(text: bytes) -> bytes:
    return encrypt(OURS, text)


def theirs(text: bytes) -> bytes:
    return encrypt(THEIRS, text)


def renamed(text: bytes) -> bytes:
    """Return a result of another host."""
    return text.replace(b"host_name=host011\n", b"host_name=host_b\n", 1)


def routes(folder: Path) -> dict[str, Route]:
    """Return every way that the results of Mod-Gearman's workers may take."""
    file = folder / "callbacks.py"
    file.write_text("def mark(data, job):\n    return data, job.unique[:-1] + b'x'\n")
    both = {"decrypt": OURS.decode(), "encrypt": THEIRS.decode()}
    rules = {
        "set": {"set": {"host_name": "host_b"}},
        "pattern": {"pattern": "^host_name=host011$", "replace": "host_name=host_b"},
    }
    callback = {"data_callback": f"{file}:mark"}
    return {
        "same_key": Route({"decrypt": OURS.decode(), "encrypt": OURS.decode()}, ours, ours),
        "other_key": Route(both, ours, theirs),
        "no_key": Route({}, ours, ours),
        "no_encryption": Route({}, b64encode, b64encode),
        "decrypted": Route({"decrypt": OURS.decode()}, ours, b64encode),
        "encrypted": Route({"encrypt": THEIRS.decode()}, b64encode, theirs),
        **{
            f"rewritten_by_{name}": Route(
                {**both, "rewrite": [rule]}, ours, lambda text: theirs(renamed(text))
            )
            for name, rule in rules.items()
        },
        "rewritten_without_keys": Route(
            {"rewrite": [rules["set"]]}, b64encode, lambda text: b64encode(renamed(text))
        ),
        "called_back": Route({**both, **callback}, ours, theirs, UNIQUE[:-1] + b"x"),
        "called_back_without_keys": Route(callback, b64encode, b64encode, UNIQUE[:-1] + b"x"),
    }


@pytest.mark.parametrize("text", [RESULT, large(RESULT)], ids=["as usual", "10 MiB"])
def test_results_arrive_as_they_were_but_for_what_was_asked(
    gearmand_a: Gearmand, gearmand_b: Gearmand, tmp_path: Path, text: bytes
) -> None:
    """To the last byte, whatever a plugin printed, and openssl is the judge of what is encrypted.

    All of them go through one relay at once.
    """
    ways = routes(tmp_path)
    queues = {
        f"{gearmand_a.address}/{name}": {
            "remote_queue": f"{gearmand_b.address}/{name}",
            **way.options,
        }
        for name, way in ways.items()
    }
    jobs = [Job(name.encode(), UNIQUE, way.sent(text)) for name, way in ways.items()]
    expected = {
        name.encode(): seen(Job(b"", way.unique, way.arrives(text))) for name, way in ways.items()
    }
    with (
        Relay(config(queues)) as relay,
        Consumer(
            gearmand_b.port, *(name.encode() for name in ways), keep_workloads=True
        ) as consumer,
    ):
        submit(gearmand_a.port, jobs)
        consumer.wait_for(len(ways))
        # Digests: pytest would compare 10 MiB of bytes line by line.
        assert {each.function: seen(each) for each in consumer.jobs} == expected
        assert not [one for one in relay.stats().values() if one["unaccounted"] or one["held"]]


@pytest.mark.parametrize("theirs", [OURS, THEIRS], ids=["same key", "other key"])
def test_a_check_is_encrypted_anew(
    gearmand_a: Gearmand, gearmand_b: Gearmand, theirs: bytes
) -> None:
    """What Mod-Gearman encrypted here, Mod-Gearman decrypts there, to the last byte."""
    options = {"decrypt": OURS.decode(), "encrypt": theirs.decode()}
    with relayed(gearmand_a, gearmand_b, options, job(encrypt(OURS, CHECK))) as arrived:
        assert decrypt(theirs, arrived[0].workload) == CHECK
        assert arrived[0].unique == b"0123456789ABCDEF0123456789ABCDEF"


def test_without_keys_bytes_pass_untouched(gearmand_a: Gearmand, gearmand_b: Gearmand) -> None:
    payloads = [encrypt(OURS, CHECK), bytes(range(256)), b"", encrypt(THEIRS, RESULT)]
    jobs = [job(payload, b"u%d" % n) for n, payload in enumerate(payloads)]
    with relayed(gearmand_a, gearmand_b, {}, *jobs) as arrived:
        assert [each.workload for each in arrived] == payloads


@pytest.mark.parametrize(
    "rule",
    [
        {"set": {"result_queue": "results_b"}},
        {"pattern": "^result_queue=.*$", "replace": "result_queue=results_b"},
    ],
)
def test_a_rewrite(gearmand_a: Gearmand, gearmand_b: Gearmand, rule: Record) -> None:
    """Changes the line that was asked for; the copy behind the header only by the pattern."""
    options = {"decrypt": OURS.decode(), "rewrite": [rule], "encrypt": THEIRS.decode()}
    with relayed(gearmand_a, gearmand_b, options, job(encrypt(OURS, CHECK))) as arrived:
        expected = CHECK.replace(b"result_queue=check_results", b"result_queue=results_b")
        assert decrypt(THEIRS, arrived[0].workload) == expected


def test_a_callback_changes_text_and_unique(
    gearmand_a: Gearmand, gearmand_b: Gearmand, tmp_path: Path
) -> None:
    """And may drop a job, which is counted and ends at the source."""
    file = tmp_path / "callbacks.py"
    file.write_text(
        "import gevproxy\n"
        "def change(data, job):\n"
        "    if b'host011' in data:\n"
        "        return gevproxy.DROP\n"
        "    place = f'{job.source} {job.target} {job.queue}'.encode()\n"
        "    return data.replace(b'host012', place), b'new unique'\n"
    )
    options = {
        "decrypt": OURS.decode(),
        "data_callback": f"{file}:change",
        "encrypt": OURS.decode(),
    }
    forward = {"remote_queue": f"{gearmand_b.address}/{QUEUE}", **options}
    key = f"{gearmand_a.address}/{QUEUE}"
    jobs = [job(encrypt(OURS, RESULT), b"u1"), job(encrypt(OURS, CHECK), b"u2")]
    with (
        Relay(config({key: forward})) as relay,
        Consumer(gearmand_b.port, QUEUE.encode(), keep_workloads=True) as consumer,
    ):
        submit(gearmand_a.port, jobs)
        consumer.wait_for(1)
        counters = relay.stats()[key]["counters"]
        assert (counters["received"], counters["dropped"], counters["confirmed"]) == (2, 1, 1)
        assert gearmand_a.admin.queue(QUEUE).total == 0
    (arrived,) = consumer.jobs
    assert arrived.unique == b"new unique"
    assert key.encode() in decrypt(OURS, arrived.workload)


def test_a_callback_that_blocks_the_loop_is_named(
    gearmand_a: Gearmand, gearmand_b: Gearmand, tmp_path: Path
) -> None:
    """By computing: a sleep would let the others go on here."""
    file = tmp_path / "callbacks.py"
    file.write_text(BLOCKING)
    options = {"payload": "raw", "data_callback": f"{file}:slow"}
    forward = {"remote_queue": f"{gearmand_b.address}/{QUEUE}", **options}
    with Relay(config({f"{gearmand_a.address}/{QUEUE}": forward})) as relay:
        submit(gearmand_a.port, [job(b"x")])
        record = relay.wait_event("callback_slow")
        assert record["message"] == f"{file}:slow held everything up"
        assert record["seconds"] > 0.3


def test_a_callback_is_read_anew_on_a_reload_and_a_broken_one_is_refused(
    gearmand_a: Gearmand, gearmand_b: Gearmand, tmp_path: Path
) -> None:
    """The forward keeps its sockets either way."""
    file = tmp_path / "callbacks.py"
    file.write_text("def f(data, job):\n    return b'one'\n")
    options = {"payload": "raw", "data_callback": f"{file}:f"}
    forward = {"remote_queue": f"{gearmand_b.address}/{QUEUE}", **options}
    with (
        Relay(config({f"{gearmand_a.address}/{QUEUE}": forward})) as relay,
        Consumer(gearmand_b.port, QUEUE.encode(), keep_workloads=True) as consumer,
    ):
        for code, event, result in [
            ("def f(data, job):\n    return b'two'\n", "reloaded", b"two"),
            ("def f(data, job:\n", "reload_refused", b"two"),
            ("def f(data, job):\n    return b'four'\n", "reloaded", b"four"),
        ]:
            file.write_text(code)
            mark = len(relay.records)
            relay.hup()
            relay.wait_event(event, since=mark)
            count = len(consumer.seen)
            submit(gearmand_a.port, [job(b"x", b"u%d" % count)])
            consumer.wait_for(count + 1)
            assert consumer.jobs[-1].workload == result
        problem = relay.events("config_problem")[0]
        assert problem["file"] == str(relay.config_file)
        assert problem["pointer"].endswith("/data_callback")
        assert "SyntaxError" in problem["message"]
        assert len(relay.events("source_up")) == 1


def test_a_key_is_read_anew_on_a_reload(
    gearmand_a: Gearmand, gearmand_b: Gearmand, tmp_path: Path
) -> None:
    """And a list of keys lets both be used until the change is through."""
    key = tmp_path / "key"
    key.write_bytes(OURS + b"\n")
    key.chmod(0o600)
    options = {"decrypt": [f"file:{key}", THEIRS.decode()], "payload": "raw"}
    forward = {"remote_queue": f"{gearmand_b.address}/{QUEUE}", **options}
    with (
        Relay(config({f"{gearmand_a.address}/{QUEUE}": forward})) as relay,
        Consumer(gearmand_b.port, QUEUE.encode(), keep_workloads=True) as consumer,
    ):
        submit(gearmand_a.port, [job(encrypt(k, CHECK), k[:5]) for k in (OURS, THEIRS)])
        consumer.wait_for(2)
        key.write_bytes(b"the newest\n")
        relay.hup()
        relay.wait_event("reloaded")
        submit(gearmand_a.port, [job(encrypt(b"the newest", RESULT), b"u3")])
        consumer.wait_for(3)
        assert [each.workload for each in consumer.jobs] == [CHECK, CHECK, RESULT]


def test_no_key_or_payload_reaches_a_record(
    gearmand_a: Gearmand, gearmand_b: Gearmand, tmp_path: Path
) -> None:
    """Whatever fails, and with debug too."""
    file = tmp_path / "callbacks.py"
    file.write_text("def f(data, job):\n    raise ValueError(data)\n")
    secret, text = "the secret password", CHECK.replace(b"host012", b"secret-host")
    forward = {
        "remote_queue": f"{gearmand_b.address}/{QUEUE}",
        "decrypt": secret,
        "encrypt": secret,
        "data_callback": f"{file}:f",
    }
    with Relay(config({f"{gearmand_a.address}/{QUEUE}": forward}), "--debug") as relay:
        jobs = [job(encrypt(secret.encode(), text), b"u%d" % n) for n in range(12)]
        submit(gearmand_a.port, jobs)
        relay.wait_event("forward_blocked")
        everything = json.dumps(relay.records)
        for hidden in (secret, "secret-host", jobs[0].workload.decode()):
            assert hidden not in everything
        assert "ValueError" in everything
