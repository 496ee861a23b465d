"""Encryption and base64, against openssl and against everything that is neither."""

import base64
import contextlib
import os
import random
import shutil
import subprocess

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gevproxy.errors import StageError
from gevproxy.stages.crypto import Decrypt, Encrypt, aes_key
from gevproxy.stages.payload import check, decode, pack

SECRET = b"correct horse"
PASSWORDS = [b"k" * length for length in (0, 1, 31, 32, 33, 64)]

CHECK = (
    b"type=service\nresult_queue=check_results\ntarget_queue=hostgroup_network_b\n"
    b"host_name=host012\nservice_description=svc00152\ncore_time=1795484776.726245\ntimeout=60\n"
    b"command_line=/usr/lib/nagios/plugins/check_x -w 1\n\n\n"
)
RESULT = (
    b"host_name=host011\nreturn_code=0\nsource=Mod-Gearman Worker @\302\240rig\n"
    b"service_description=svc00191\noutput=OK - fine|v=776\\n\n\n\n\n"
)

decrypt = Decrypt([SECRET], any_text=False)
decrypt_any = Decrypt([SECRET], any_text=True)
encrypt = Encrypt(SECRET)

needs_openssl = pytest.mark.skipif(
    shutil.which("openssl") is None and not os.environ.get("CI"), reason="openssl is missing"
)


def openssl(data: bytes, password: bytes, *options: str) -> bytes:
    """Run data through openssl with the password padded as Mod-Gearman pads it."""
    key = (password + bytes(32))[:32].hex()
    command = ["openssl", "enc", "-aes-256-ecb", "-nopad", "-K", key, *options]
    return subprocess.run(command, input=data, capture_output=True, check=True).stdout


def padded(text: bytes) -> bytes:
    """Return the text with at least one NUL, up to a whole block."""
    return text + bytes(16 - len(text) % 16)


def refusal(stage: Decrypt, payload: bytes) -> str:
    """Return why a payload is refused; what it holds, and the key, must not be in there."""
    with pytest.raises(StageError) as caught:
        stage(payload)
    return str(caught.value)


@needs_openssl
@pytest.mark.parametrize("length", range(201))
def test_openssl_reads_what_encrypt_makes_and_decrypt_what_openssl_makes(length: int) -> None:
    text = random.Random(length).randbytes(length).replace(b"\0", b"x")
    opened = openssl(base64.b64decode(encrypt(text)), SECRET, "-d")
    assert opened == padded(text)
    assert opened.endswith(b"\0")
    assert decrypt_any(base64.b64encode(openssl(padded(text), SECRET))) == text


@needs_openssl
@pytest.mark.parametrize("password", PASSWORDS, ids=len)
def test_passwords_of_any_length(password: bytes) -> None:
    stage = Decrypt([password], any_text=False)
    assert stage(base64.b64encode(openssl(padded(CHECK), password))) == CHECK
    assert openssl(base64.b64decode(Encrypt(password)(CHECK)), password, "-d") == padded(CHECK)


def test_a_key_is_filled_up_with_nuls_and_cut_to_32_bytes() -> None:
    assert aes_key(b"") == bytes(32)
    assert aes_key(b"ab") == b"ab" + bytes(30)
    assert aes_key(bytes(range(64))) == bytes(range(32))


def test_encrypt_writes_one_line() -> None:
    assert b"\n" not in encrypt(CHECK * 10)
    assert b"\n" not in pack(CHECK * 10)


@pytest.mark.parametrize("text", [CHECK, RESULT], ids=["check", "result"])
def test_texts_of_mod_gearman_come_back_byte_for_byte(text: bytes) -> None:
    assert decrypt(encrypt(text)) == text
    assert decode(pack(text)) == text
    assert check(text) is text


def test_an_output_of_10_mib_comes_back() -> None:
    text = b"host_name=h\noutput=" + random.Random(1).randbytes(10 << 20).replace(b"\0", b"\n")
    assert decrypt(encrypt(text)) == text


@pytest.mark.parametrize(
    ("separator", "width"), [(b"\n", 76), (b"\r\n", 76), (b"\r", 64), (b" \t\v\f", 1)]
)
def test_ascii_white_space_anywhere_is_accepted(separator: bytes, width: int) -> None:
    """Perl's MIME::Base64 writes lines of 76 columns, each with its line end."""
    line = encrypt(CHECK)
    parts = [line[at : at + width] for at in range(0, len(line), width)]
    payload = separator + separator.join(parts) + separator
    assert decrypt(payload) == CHECK
    assert decode(payload) == base64.b64decode(line)


@pytest.mark.parametrize("junk", [b"\xc2\xa0", b"\0", b"-", b"=", b"\x1c", b"\x85", b"!"])
@pytest.mark.parametrize("at", [0, 3, 100])
def test_anything_else_in_base64_is_refused(junk: bytes, at: int) -> None:
    line = encrypt(CHECK)
    assert "base64" in refusal(decrypt, line[:at] + junk + line[at:])
    with pytest.raises(StageError, match="stage decode"):
        decode(line[:at] + junk + line[at:])


def test_other_refusals_of_decrypt_name_a_likely_cause() -> None:
    line = encrypt(CHECK)
    assert refusal(decrypt, b"") == "stage decrypt: the payload is empty"
    assert "base64: cut off" in refusal(decrypt, line[:-1])
    assert "cut off, or not encrypted?" in refusal(decrypt, line[:-4])
    assert "cut off, or not encrypted?" in refusal(decrypt, pack(b"type=host\n"))
    assert refusal(Decrypt([b"other"], any_text=False), line).startswith(
        "stage decrypt: wrong key?"
    )


@pytest.mark.parametrize("payload", [b"", b"=", b"a", b"%%%%", CHECK, encrypt(CHECK), pack(CHECK)])
def test_no_refusal_shows_the_key_or_the_payload(payload: bytes) -> None:
    secret = b"swordfish-4711"
    shown = refusal(Decrypt([secret, SECRET[::-1]], any_text=False), payload)
    assert not any(part in shown for part in (secret.decode(), secret.hex(), "host012", "check_x"))
    assert not len(payload) > 4 or payload[:8].decode() not in shown
    assert secret.decode() not in repr(Decrypt([secret], any_text=True)) + repr(Encrypt(secret))


def test_keys_are_tried_in_order() -> None:
    both = Decrypt([b"new", SECRET], any_text=False)
    assert both(encrypt(CHECK)) == CHECK
    assert both(Encrypt(b"new")(RESULT)) == RESULT
    assert "wrong key?" in refusal(both, Encrypt(b"third")(CHECK))


def test_where_any_text_is_right_the_first_key_is() -> None:
    first = Decrypt([b"new", SECRET], any_text=True)
    assert first(Encrypt(b"new")(b"anything")) == b"anything"
    assert first(encrypt(b"anything")) != b"anything"


def test_nuls_are_stripped_at_the_end_and_nowhere_else() -> None:
    text = b"type=x\0y"
    assert decrypt(encrypt(text + bytes(40))) == text
    assert decrypt_any(encrypt(b"")) == b""


def test_an_unencrypted_text_that_is_not_mod_gearmans_is_refused() -> None:
    with pytest.raises(StageError, match="stage decode: encrypted"):
        check(b"\x12\x34 type=")


def test_ten_thousand_payloads_are_exact_or_refused() -> None:
    """Every fifth one is good, the others are random, cut or broken in one byte."""
    rng = random.Random(5)
    good = delivered = 0
    for number in range(10_000):
        text = b"type=service\nhost_name=" + rng.randbytes(rng.randrange(300)) + b"x"
        payload = encrypt(text)
        kind = number % 5
        if kind == 0:
            good += 1
            assert decrypt(payload) == text
            continue
        at = rng.randrange(len(payload))
        broken = {
            1: rng.randbytes(rng.randrange(400)),
            2: pack(rng.randbytes(16 * rng.randrange(20))),
            3: payload[:at],
            4: payload[:at] + rng.randbytes(1) + payload[at + 1 :],
        }[kind]
        try:
            got = decrypt(broken)
        except StageError:
            continue
        # No check sum guards a text: a cut between blocks does not show, nor a change past
        # the first block.
        delivered += 1
        assert got.startswith(b"type=")
        assert kind == 4 or (kind == 3 and text.startswith(got))
    assert good == 2000
    assert delivered < 8000


@settings(deadline=None)  # other work may slow the machine down
@given(st.binary(max_size=300), st.binary(max_size=64), st.sampled_from([b"", b"\n", b" \r\n"]))
def test_any_text_and_key_come_back(text: bytes, password: bytes, space: bytes) -> None:
    payload = Encrypt(password)(text)
    got = Decrypt([password], any_text=True)(space.join([payload[:9], payload[9:], b""]))
    assert got == text.rstrip(b"\0")


@settings(deadline=None)  # other work may slow the machine down
@given(st.binary(max_size=100) | st.text("AQZaz09+/= \n").map(str.encode))
def test_any_payload_is_a_text_or_a_stage_error(payload: bytes) -> None:
    for stage in (decrypt, decrypt_any, decode):
        with contextlib.suppress(StageError):
            assert isinstance(stage(payload), bytes)
