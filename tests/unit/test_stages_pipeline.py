"""A forward's stages together: their order, the payload's form, and what cannot be built."""

import base64
import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gevproxy.config.model import Expect, ForwardConfig, Payload, QueueAddress, SetField, Substitute
from gevproxy.errors import ConfigError, Problem, StageError
from gevproxy.gearman.job import Handle, Job, Server
from gevproxy.stages import Pipeline, build
from gevproxy.stages import pipeline as pipelines
from gevproxy.stages.crypto import Decrypt, Encrypt

TEXT = b"type=service\nresult_queue=check_results\nhost_name=@\302\240h\n\n\n"
CHANGED = TEXT.replace(b"check_results", b"b")
SET = (SetField(b"result_queue", b"b"),)
PATTERN = Substitute(b"^result_queue=.*$", b"result_queue=b")

PLAIN = ForwardConfig(
    source=QueueAddress(Server("a.example"), "service"),
    target=QueueAddress(Server("b.example"), "remote"),
)

LOCAL, REMOTE = "local password", "remote password"


def made(**options: Any) -> Pipeline:  # noqa: ANN401 - any option
    """Return the pipeline of a forward with some options."""
    expect = Expect.MOD_GEARMAN if options.get("decrypt") else Expect.ANY
    pipeline = build(replace(PLAIN, **{"expect": expect} | options), environ={})
    assert pipeline is not None
    return pipeline


def job(workload: bytes) -> Job:
    """Return a job with a workload."""
    return Job(Handle(b"H:a:1"), b"service", b"unique", workload)


def workload(pipeline: Pipeline, payload: bytes) -> bytes:
    """Return the workload that reaches the target."""
    result = pipeline(job(payload))
    assert result is not None
    assert result == job(result.workload)
    return result.workload


def encrypted(text: bytes, password: str = LOCAL) -> bytes:
    """Return a text as the source sends it."""
    return Encrypt(password.encode())(text)


def decrypted(payload: bytes, password: str = REMOTE) -> bytes:
    """Return a text as the target reads it."""
    return Decrypt([password.encode()], any_text=True)(payload)


def problems(forward: ForwardConfig, environ: dict[str, str] | None = None) -> list[Problem]:
    """Return why a pipeline cannot be built."""
    with pytest.raises(ConfigError) as caught:
        build(forward, environ=environ or {})
    return list(caught.value.problems)


@pytest.mark.parametrize("payload", Payload)
@pytest.mark.parametrize("expect", Expect)
def test_without_a_stage_there_is_no_pipeline(payload: Payload, expect: Expect) -> None:
    assert build(replace(PLAIN, payload=payload, expect=expect), environ={}) is None


@pytest.mark.parametrize("remote", [LOCAL, REMOTE])
def test_decrypt_rewrite_encrypt(remote: str) -> None:
    pipeline = made(decrypt=(LOCAL,), rewrite=SET, encrypt=remote)
    assert decrypted(workload(pipeline, encrypted(TEXT)), remote) == CHANGED


def test_the_same_key_on_both_sides_gives_the_same_bytes() -> None:
    pipeline = made(decrypt=(LOCAL,), encrypt=LOCAL)
    assert workload(pipeline, encrypted(TEXT)) == encrypted(TEXT)


@pytest.mark.parametrize("text", [b"type=", b"host_name=" + b"x" * 6, b"type=x" * 100 + b"\377"])
def test_perls_padding_becomes_cs(text: bytes) -> None:
    """Perl pads to 32, adds no NUL to a whole multiple of it, and wraps its base64."""
    perl = base64.b64decode(encrypted(text))
    wrapped = base64.encodebytes(perl)
    assert workload(made(decrypt=(LOCAL,), encrypt=LOCAL), wrapped) == encrypted(text)


@pytest.mark.parametrize(
    ("payload", "out"), [(Payload.BASE64, base64.b64encode(CHANGED)), (Payload.RAW, CHANGED)]
)
def test_decrypt_without_encrypt_packs_as_payload_says(payload: Payload, out: bytes) -> None:
    pipeline = made(decrypt=(LOCAL,), rewrite=SET, payload=payload)
    assert workload(pipeline, encrypted(TEXT)) == out


@pytest.mark.parametrize(
    ("payload", "arriving"), [(Payload.BASE64, base64.b64encode(TEXT)), (Payload.RAW, TEXT)]
)
def test_encrypt_without_decrypt_unpacks_as_payload_says(payload: Payload, arriving: bytes) -> None:
    pipeline = made(rewrite=SET, encrypt=REMOTE, payload=payload)
    assert decrypted(workload(pipeline, arriving)) == CHANGED


def test_a_rewrite_alone() -> None:
    arriving = base64.encodebytes(TEXT)
    assert workload(made(rewrite=SET), arriving) == base64.b64encode(CHANGED)
    assert workload(made(rewrite=SET, payload=Payload.RAW), TEXT) == CHANGED


def test_raw_bytes_are_taken_as_they_are() -> None:
    rule = (Substitute(b"a", b"b"),)
    assert workload(made(rewrite=rule, payload=Payload.RAW), b"\0a\377\n\0") == b"\0b\377\n\0"


def test_an_unencrypted_payload_that_is_not_base64_is_refused() -> None:
    with pytest.raises(StageError, match="stage decode: the payload is not base64"):
        made(rewrite=SET)(job(TEXT))


@pytest.mark.parametrize("payload", Payload)
def test_an_unencrypted_text_is_checked_where_that_is_asked_for(payload: Payload) -> None:
    def packed(text: bytes) -> bytes:
        return base64.b64encode(text) if payload is Payload.BASE64 else text

    pipeline = made(rewrite=SET, payload=payload, expect=Expect.MOD_GEARMAN)
    assert workload(pipeline, packed(TEXT)) == packed(CHANGED)
    with pytest.raises(StageError, match="stage decode: encrypted"):
        pipeline(job(packed(b"anything")))
    assert workload(made(rewrite=SET, payload=payload), packed(b"x=1\n"))


def test_the_order_is_decrypt_rewrite_callback_encrypt(tmp_path: Path) -> None:
    path = tmp_path / "rules.py"
    path.write_text("def f(data, job): return data.replace(b'=b', b'=c'), job.unique + b'2'\n")
    pipeline = made(decrypt=(LOCAL,), rewrite=SET, data_callback=f"{path}:f", encrypt=REMOTE)
    result = pipeline(job(encrypted(TEXT)))
    assert result is not None
    assert (result.handle, result.function, result.unique) == (b"H:a:1", b"service", b"unique2")
    assert decrypted(result.workload) == TEXT.replace(b"check_results", b"c")


def test_a_callback_may_drop(tmp_path: Path) -> None:
    path = tmp_path / "rules.py"
    path.write_text("import gevproxy\ndef f(data, job): return gevproxy.DROP\n")
    assert made(data_callback=f"{path}:f", payload=Payload.RAW)(job(b"x")) is None


def test_a_slow_callback_is_reported_by_its_name(tmp_path: Path) -> None:
    path = tmp_path / "rules.py"
    path.write_text("def f(data, job): return data\n")
    forward = replace(PLAIN, data_callback=f"{path}:f", payload=Payload.RAW)
    times = iter([1.0, 1.5])
    slow: list[tuple[str, float]] = []
    pipeline = build(
        forward,
        environ={},
        on_slow=lambda name, seconds: slow.append((name, seconds)),
        clock=lambda: next(times),
    )
    assert pipeline is not None
    assert pipeline(job(b"x")) == job(b"x")
    assert slow == [(f"{path}:f", 0.5)]


def test_keys_come_from_files_and_credentials_as_they_are_now(tmp_path: Path) -> None:
    key = tmp_path / "key"
    key.write_bytes(b"first\n")
    key.chmod(0o600)
    (tmp_path / "remote").write_bytes(b"second\n")
    forward = replace(
        PLAIN,
        decrypt=("wrong", f"file:{key}"),
        encrypt="credential:remote",
        expect=Expect.MOD_GEARMAN,
    )
    old = build(forward, environ={"CREDENTIALS_DIRECTORY": str(tmp_path)})
    key.write_bytes(b"changed\n")
    new = build(forward, environ={"CREDENTIALS_DIRECTORY": str(tmp_path)})
    assert old is not None
    assert new is not None
    assert decrypted(workload(old, encrypted(TEXT, "first")), "second") == TEXT
    assert decrypted(workload(new, encrypted(TEXT, "changed")), "second") == TEXT
    with pytest.raises(StageError, match="wrong key"):
        new(job(encrypted(TEXT, "first")))


def test_all_problems_come_at_once_each_with_its_place(tmp_path: Path) -> None:
    open_to_all = tmp_path / "key"
    open_to_all.write_bytes(b"sesame-4711\n")
    open_to_all.chmod(0o644)
    found = problems(
        replace(
            PLAIN,
            decrypt=("ok", "file:/no/such/key"),
            rewrite=(Substitute(b"(", b""),),
            data_callback="no_such_module:f",
            encrypt=f"file:{open_to_all}",
        )
    )
    here = "/queues/a.example:4730~1service/"
    options = ["decrypt/1", "rewrite", "data_callback", "encrypt"]
    assert [problem.pointer for problem in found] == [here + option for option in options]
    assert not any(word in str(found) for word in ("sesame", "4711"))


def test_a_single_keys_place_is_the_option_itself() -> None:
    (problem,) = problems(replace(PLAIN, decrypt=("credential:x",)))
    assert problem.pointer == "/queues/a.example:4730~1service/decrypt"
    assert "CREDENTIALS_DIRECTORY" in problem.message


def test_importing_gevproxy_has_no_other_effect() -> None:
    """A callback imports it for DROP, and `__main__` imports it before gevent patches anything."""
    code = (
        "import enum, json, sys, typing; before = set(sys.modules); import gevproxy; "
        "print(json.dumps(sorted(set(sys.modules) - before)))"
    )
    command = [sys.executable, "-c", code]
    result = subprocess.run(command, capture_output=True, check=True, text=True)
    assert json.loads(result.stdout) == ["gevproxy"]


def one_by_one(pipeline: Pipeline, payloads: list[bytes]) -> list[bytes] | None:
    """Return what a row has to be: the workloads of the jobs, None where one is refused."""
    try:
        return [workload(pipeline, payload) for payload in payloads]
    except StageError:
        return None


TEXTS = st.binary(max_size=100).map(lambda end: b"type=" + end) | st.sampled_from([TEXT, b"wrong"])
PAYLOADS = st.one_of(
    TEXTS.map(encrypted),
    TEXTS.map(lambda text: encrypted(text, REMOTE)),
    TEXTS.map(lambda text: base64.encodebytes(base64.b64decode(encrypted(text)))),
    TEXTS.map(base64.b64encode),
    st.binary(max_size=40),
)

ROWS = {
    "one key": {"decrypt": (LOCAL,), "rewrite": SET, "encrypt": REMOTE},
    "two keys": {"decrypt": (LOCAL, REMOTE), "encrypt": LOCAL},
    "any text": {"decrypt": (LOCAL,), "expect": Expect.ANY, "rewrite": (*SET, PATTERN)},
    "not encrypted": {"rewrite": (PATTERN,), "expect": Expect.MOD_GEARMAN, "encrypt": REMOTE},
    "raw": {"payload": Payload.RAW, "rewrite": SET},
}


@pytest.mark.parametrize("options", ROWS.values(), ids=ROWS)
@settings(deadline=None)  # other work may slow the machine down
@given(good=st.lists(TEXTS.map(encrypted), min_size=2), any_at_all=st.lists(PAYLOADS, min_size=2))
def test_a_row_is_what_its_jobs_are(
    options: dict[str, Any], good: list[bytes], any_at_all: list[bytes]
) -> None:
    pipeline = made(**options)
    for payloads in (good, any_at_all):
        row = pipeline.row([job(payload) for payload in payloads])
        assert row == one_by_one(pipeline, payloads)


def test_what_goes_one_by_one_is_no_row(tmp_path: Path) -> None:
    pipeline = made(decrypt=(LOCAL,))
    large = encrypted(b"type=" + bytes(pipelines.LARGEST_ROW))
    assert pipeline.row([job(encrypted(TEXT))]) is None
    assert pipeline.row([job(large)] * 2) is None
    callback = tmp_path / "callback.py"
    callback.write_text("def same(data, job): return data")
    called = made(payload=Payload.RAW, data_callback=f"{callback}:same")
    assert called.row([job(TEXT)] * 2) is None


def test_the_version_follows_the_rules_and_the_callbacks_file(tmp_path: Path) -> None:
    """And nothing else: keys do not make a job stay in its stage."""
    code = tmp_path / "code.py"
    code.write_text("def f(data, job):\n    return data\n")
    options = {"rewrite": SET, "data_callback": f"{code}:f"}
    before = made(**options).version
    assert made(**options, encrypt=REMOTE).version == before
    assert made(**options | {"rewrite": (PATTERN,)}).version != before
    assert made(rewrite=SET).version != before
    code.write_text("def f(data, job):\n    return data + b''\n")
    assert made(**options).version != before
