"""Reading a check, and the answer to a late one, byte for byte."""

import base64
from pathlib import Path

import pytest

from gevproxy.config import ForwardConfig, Payload, parse_address
from gevproxy.errors import ConfigError, StageError
from gevproxy.stages import check_reader
from gevproxy.stages.late import Check, answer
from tests.mod_gearman.payloads import CHECK, RESULT, decrypt, encrypt

A, B = parse_address("a/q"), parse_address("b/q")
CORE_TIME = 1795484776.726245
HOST_CHECK = (
    b"type=host\nresult_queue=check_results\nhost_name=host012\ncore_time=1795484776.726245\n"
    b"command_line=/usr/lib/nagios/plugins/check_icmp\n\n\n"
)


def read(
    payload: bytes,
    *,
    packed: Payload = Payload.BASE64,
    decrypt: tuple[str, ...] = (),
    max_age: float | None = 60,
) -> Check | None:
    config = ForwardConfig(source=A, target=B, max_age=max_age, payload=packed, decrypt=decrypt)
    reader = check_reader(config, environ={})
    assert reader is not None
    return reader(payload)


def opened(key: str, payload: bytes) -> bytes:
    return decrypt(key.encode(), payload)


def raw(text: bytes) -> Check | None:
    return read(text, packed=Payload.RAW)


def test_a_check_is_read() -> None:
    check = raw(CHECK)
    assert check is not None
    assert check[:4] == (CORE_TIME, b"check_results", b"host012", b"svc00152")
    host = raw(HOST_CHECK)
    assert host is not None
    assert (host.host, host.service) == (b"host012", b"")


@pytest.mark.parametrize(
    "text",
    [
        RESULT,
        CHECK.replace(b"core_time=", b"other_time="),
        CHECK.replace(b"core_time=1", b"core_time=soon"),
        CHECK.replace(b"core_time=1795484776.726245", b"core_time=inf"),
        CHECK.replace(b"core_time=1795484776.726245", b"core_time="),
        CHECK.replace(b"result_queue=check_results\n", b""),
        CHECK.replace(b"result_queue=check_results", b"result_queue=a\0b"),
        CHECK.replace(b"host_name=host012\n", b""),
        CHECK.replace(b"type=service", b"type=notification"),
        b"type=service\n\n" + CHECK,
        b"type=service",
    ],
)
def test_what_is_no_check_or_has_no_age_is_none(text: bytes) -> None:
    assert raw(text) is None


def test_the_last_of_several_lines_of_a_name_counts_and_the_header_ends() -> None:
    text = CHECK.replace(b"timeout=60", b"core_time=7") + b"core_time=8\n"
    check = raw(text)
    assert check is not None
    assert check.core_time == 7


def test_what_cannot_be_read_is_an_error_without_the_payload() -> None:
    encrypted = encrypt(b"a key", CHECK)
    for payload, packed, keys in [
        (encrypted, Payload.BASE64, ()),
        (encrypted, Payload.RAW, ()),
        (b"no base64", Payload.BASE64, ()),
        (encrypted, Payload.BASE64, ("other", "another")),
    ]:
        with pytest.raises(StageError) as caught:
            read(payload, packed=packed, decrypt=keys)
        assert "svc00152" not in str(caught.value)


def test_without_max_age_there_is_no_reader() -> None:
    assert check_reader(ForwardConfig(source=A, target=B), environ={}) is None


def test_a_key_that_is_not_there_is_a_problem_with_its_place(tmp_path: Path) -> None:
    config = ForwardConfig(source=A, target=B, max_age=1, decrypt=(f"file:{tmp_path}/none",))
    with pytest.raises(ConfigError) as caught:
        check_reader(config, environ={})
    assert caught.value.problems[0].pointer == "/queues/a:4730~1q/decrypt"


TEXT = (
    b"host_name=host012\ncore_start_time=1795484776.726245\nstart_time=1795484900.250000\n"
    b"finish_time=1795484900.250000\nreturn_code=3\nexited_ok=1\nsource=gevproxy\n"
    b"service_description=svc00152\noutput=Could not start check in time\n\n\n\n"
)


def test_the_answer_is_what_a_worker_sends() -> None:
    check = raw(CHECK)
    assert check is not None
    queue, unique, text = answer(check, 1795484900.25)
    assert (queue, text) == (b"check_results", TEXT)
    assert 0 < len(unique) <= 64


def test_the_answer_about_a_host_names_no_service() -> None:
    check = raw(HOST_CHECK)
    assert check is not None
    expected = TEXT.replace(b"service_description=svc00152\n", b"")
    assert answer(check, 1795484900.25).payload == expected


def test_the_answer_is_packed_as_the_check_was_and_under_the_same_key() -> None:
    plain = read(base64.b64encode(CHECK))
    assert plain is not None
    assert base64.b64decode(answer(plain, 1795484900.25).payload, validate=True) == TEXT
    for key in ("old", "new"):
        check = read(encrypt(key.encode(), CHECK), decrypt=("new", "old"))
        assert check is not None
        assert opened(key, answer(check, 1795484900.25).payload) == TEXT


def test_two_answers_to_one_check_coalesce_and_those_to_two_do_not() -> None:
    texts = [
        CHECK,
        CHECK,
        CHECK.replace(b"svc00152", b"svc00153"),
        CHECK.replace(b"host012", b"host013"),
        CHECK.replace(b"core_time=1795484776.7", b"core_time=1795484777.7"),
    ]
    checks = [check for text in texts if (check := raw(text))]
    uniques = [answer(check, 1795484900.0 + n).unique for n, check in enumerate(checks)]
    assert uniques[0] == uniques[1]
    assert len(set(uniques)) == 4
