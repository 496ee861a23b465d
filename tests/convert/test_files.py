"""The files that are written: private, never over others; and what a stub does to jobs."""

import json
import stat
from pathlib import Path

import pytest

from gevproxy.config import load, resolve_key
from tests.convert.kit import Convert
from tests.kit.peers import Job, submit
from tests.kit.relay import Relay
from tests.kit.servers import Gearmand
from tests.mod_gearman.payloads import CHECK, encrypt

KEYS = r"""
my $ours = "s3cret ours";
$queues->{"a/one"}   = { remoteQueue => "b/one", decrypt => $ours, encrypt => "s3cret b" };
$queues->{"b/back"}  = { remoteQueue => "a/back", decrypt => "s3cret b", encrypt => $ours };
$queues->{"a/two"}   = { remoteQueue => "b/two", decrypt => $ours, encrypt => "s3cret b2" };
$queues->{"a/three"} = { remoteQueue => "c/three", decrypt => $ours, encrypt => "s3cret \xe4" };
$queues->{"a/four"}  = { remoteQueue => "c/four", decrypt => $ours, encrypt => "credential:x" };
"""

STUB = """
$queues->{"A/q"} = {
    remoteQueue => "B/q", decrypt => "s3cret", encrypt => "s3cret",
    data_callback => sub { my ($data) = @_; return uc $data },
};
"""


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def test_passwords_move_into_files(convert: Convert) -> None:
    """One for each, private, named after its server, and each is the key that it was."""
    done = convert(convert.perl(KEYS), "--keys-dir", "keys", "--output", "gevproxy.json")
    assert (done.code, done.out) == (0, "")
    folder = convert.folder / "keys"
    files = {path.name: path.read_bytes() for path in folder.iterdir()}
    assert files == {
        "a_4730": b"s3cret ours\n",
        "b_4730": b"s3cret b\n",
        "b_4730-2": b"s3cret b2\n",
        "c_4730": b"credential:x\n",
        "c_4730-2": b"s3cret \xe4\n",
    }
    assert mode(folder) == 0o700
    assert {mode(path) for path in folder.iterdir()} == {0o600}
    written = convert.folder / "gevproxy.json"
    assert mode(written) == 0o600
    assert "s3cret" not in written.read_text() + done.err
    loaded = {each.key: each for each in load([written], environ={}).forwards}
    spec = loaded["a:4730/three"].encrypt
    assert spec is not None
    assert resolve_key(spec, environ={}) == b"s3cret \xe4"
    again = convert("gearman_proxy.cfg", "--keys-dir", "keys", "--output", "again.json")
    assert again.code == 0, "files that hold their key may be there"
    assert convert("gearman_proxy.cfg", "--check", "again.json").code == 0


def test_a_password_that_a_key_file_cannot_hold_stays_in_the_json(convert: Convert) -> None:
    """White space at the end of a file is none of the key, as Mod-Gearman reads it."""
    queue = '$queues->{"%s"} = { remoteQueue => "b/q", decrypt => "s3cret", encrypt => "%s" };'
    file = convert.perl(queue % ("a/one", "s3cret b "))
    done = convert(file, "--keys-dir", "keys", "--output", "gevproxy.json")
    assert done.code == 0
    assert "note: the JSON holds a password with white space at its end" in done.err
    assert [path.name for path in (convert.folder / "keys").iterdir()] == ["a_4730"]
    assert convert("gearman_proxy.cfg", "--check", "gevproxy.json").code == 0
    file = convert.perl(queue % ("a/two", r"s3cret \xe4 "))
    done = convert(file, "--keys-dir", "keys2", "--output", "second.json")
    assert done.code == 1
    assert "keys2/b_4730 is to hold a password that a key file cannot, nor JSON" in done.err


def test_a_password_that_json_cannot_hold_is_named(convert: Convert) -> None:
    done = convert(convert.perl(KEYS))
    assert done.code == 1
    written = json.loads(done.out)["queues"]
    assert written["a:4730/one"]["decrypt"] == "s3cret ours"
    for queue in ("three", "four"):
        path = written[f"a:4730/{queue}"]["encrypt"].removeprefix("file:")
        assert f"to do: {path} is to hold a password that JSON cannot" in done.err
    assert "s3cret" not in done.err


@pytest.mark.parametrize("in_the_way", ["gevproxy.json", "callbacks.py", "keys/a_4730"])
def test_nothing_is_overwritten_and_then_nothing_is_written(
    convert: Convert, in_the_way: str
) -> None:
    file = convert.perl(STUB.replace("A/", "a/"))
    path = convert.perl("precious", in_the_way)
    before = set(convert.folder.rglob("*"))
    done = convert(
        file, "--output", "gevproxy.json", "--callbacks", "callbacks.py", "--keys-dir", "keys"
    )
    assert (done.code, done.out) == (78, "")
    assert f"error: {path}: exists and is not overwritten" in done.err
    assert path.read_text() == "precious"
    assert set(convert.folder.rglob("*")) == before


def test_a_file_that_cannot_be_written(convert: Convert) -> None:
    done = convert(convert.perl('$queues->{"a/q"} = "b/q";'), "--output", "no/such/folder.json")
    assert done.code == 78
    assert "folder.json: cannot be written: No such file or directory" in done.err


def test_callbacks_go_into_a_python_file(convert: Convert) -> None:
    with pytest.raises(SystemExit, match="2"):
        convert(convert.perl(STUB), "--callbacks", "callbacks.json")
    assert "the name of a Python file ends in .py" in convert.capture.readouterr().err
    done = convert(convert.perl(STUB))
    assert done.code == 1
    assert "to do: /etc/gevproxy/callbacks.py is not written" in done.err
    assert "/etc/gevproxy/callbacks.py:q" in done.out


def test_a_stub_lets_no_job_pass(
    convert: Convert, gearmand_a: Gearmand, gearmand_b: Gearmand
) -> None:
    """The job becomes a dead letter; nothing arrives unchanged."""
    text = STUB.replace("A/", f"{gearmand_a.address}/").replace("B/", f"{gearmand_b.address}/")
    done = convert(convert.perl(text), "--callbacks", "callbacks.py")
    assert done.code == 1
    assert 'write the function "q" in Python' in done.err
    with Relay(json.loads(done.out)) as relay:
        submit(gearmand_a.port, [Job(b"q", b"u", encrypt(b"s3cret", CHECK))])
        reason = relay.wait_event("dead_letter")["message"]
        assert "NotImplementedError" in reason
        (status,) = relay.stats().values()
        assert status["counters"]["dead_lettered"] == 1
        assert "q" not in gearmand_b.admin.status()


def test_a_key_for_what_is_no_check_is_to_be_looked_at(convert: Convert) -> None:
    """Decrypted performance data begins otherwise than a check, and would become dead letters."""
    hash_ = '{ remoteQueue => "t/q", decrypt => "s3cret", encrypt => "s3cret" }'
    for queue, code in (("perfdata", 1), ("export", 1), ("service", 0)):
        done = convert(convert.perl(f'$queues->{{"h/{queue}"}} = {hash_};\n'))
        assert done.code == code, done.err
        assert ('"expect": "any"' in done.err) == bool(code)
