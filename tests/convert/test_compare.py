"""`gevproxy convert --check`: every difference is told, and what only we have is none."""

import json
from collections.abc import Callable
from typing import Any

import pytest

from tests.convert.kit import Convert

PERL = r"""
$statusqueue = "a/status";
$queues->{"a/simple"} = "b/simple";
$queues->{"a/sync"} = { remoteQueue => "b/sync", async => 0, worker => 3 };
$queues->{"a/keys"} = {
    remoteQueue => "b/keys", decrypt => "s3cret 1", encrypt => "s3cret 2",
    data_callback => sub { my ($data) = @_; $data =~ s/^result_queue=.*$/result_queue=x/gm; $data },
};
$queues->{"a/callback"} = { remoteQueue => "b/callback", data_callback => sub { lc $_[0] } };
"""


Json = dict[str, Any]


def same(_: Json, __: Json) -> None:
    """Change nothing."""


DIFFERENCES: dict[str, tuple[Callable[[Json, Json], object], str]] = {
    "missing": (lambda _, q: q.pop("a:4730/simple"), "a:4730/simple: in Perl only"),
    "more": (lambda _, q: q.update({"a/more": "b/more"}), "a:4730/more: in the JSON only"),
    "target": (
        lambda _, q: q.update({"a:4730/simple": "c/simple"}),
        "a:4730/simple: goes to b:4730/simple in Perl, to c:4730/simple in the JSON",
    ),
    "async": (
        lambda _, q: q.update({"a:4730/sync": "b/sync"}),
        "a:4730/sync: synchronous in Perl, asynchronous in the JSON",
    ),
    "workers": (
        lambda _, q: q["a:4730/sync"].update(workers=4),
        "a:4730/sync: 3 workers in Perl, 4 in the JSON",
    ),
    "another key": (
        lambda _, q: q["a:4730/keys"].update(decrypt="s3cret 3"),
        "a:4730/keys: decrypt is another key",
    ),
    "no key": (
        lambda _, q: q["a:4730/keys"].pop("encrypt"),
        "a:4730/keys: encrypt is in Perl only",
    ),
    "a key": (
        lambda _, q: q.update({"a:4730/simple": {"remote_queue": "b/simple", "encrypt": "s3cret"}}),
        "a:4730/simple: encrypt is in the JSON only",
    ),
    "payload": (
        lambda _, q: q["a:4730/keys"].update(payload="raw"),
        "a:4730/keys: payload is base64 in Perl, raw in the JSON",
    ),
    "rewrite": (
        lambda _, q: q["a:4730/keys"].update(rewrite={"set": {"result_queue": "y"}}),
        "a:4730/keys: rewrite does not do what the callback in Perl does",
    ),
    "no rewrite": (
        lambda _, q: q["a:4730/keys"].pop("rewrite"),
        "a:4730/keys: rewrite does not do what the callback in Perl does",
    ),
    "one more callback": (
        lambda _, q: q["a:4730/keys"].update(data_callback="callbacks.py:callback"),
        "a:4730/keys: data_callback is in the JSON only",
    ),
    "no callback": (
        lambda _, q: q["a:4730/callback"].pop("data_callback"),
        "a:4730/callback: data_callback is in Perl only",
    ),
    "status queue": (
        lambda top, _: top.pop("status_queue"),
        "status_queue: a:4730/status in Perl, none in the JSON",
    ),
    "debug": (lambda top, _: top.update(debug=True), "debug: false in Perl, true in the JSON"),
}

NONE: dict[str, Callable[[Json, Json], object]] = {
    "nothing": same,
    "set": lambda _, q: q["a:4730/keys"].update(rewrite={"set": {"result_queue": "x"}}),
    "ours": lambda top, q: (
        top.update(drain=3, log_file="/log"),
        q["a:4730/keys"].update(window=5, hold=1, unique="none"),
    ),
    "several keys": lambda _, q: q["a:4730/keys"].update(decrypt=["s3cret 3", "s3cret 1"]),
    "the port": lambda _, q: q.update({"a/simple": q.pop("a:4730/simple")}),
}


@pytest.fixture
def document(convert: Convert) -> Json:
    """Convert the configuration, to be changed."""
    done = convert(convert.perl(PERL), "--callbacks", "callbacks.py")
    loaded: Json = json.loads(done.out)
    return loaded


def check(convert: Convert, document: Json, *, code: int) -> tuple[str, str]:
    """Compare with a document; return what is said, and what could not be compared."""
    (convert.folder / "gevproxy.json").write_text(json.dumps(document))
    done = convert("gearman_proxy.cfg", "--check", "gevproxy.json")
    assert done.code == code
    assert "s3cret" not in done.out + done.err
    return done.out, done.err


@pytest.mark.parametrize("name", DIFFERENCES)
def test_a_difference(convert: Convert, document: Json, name: str) -> None:
    change, words = DIFFERENCES[name]
    change(document, document["queues"])
    assert check(convert, document, code=1)[0] == f"{words}\n"


@pytest.mark.parametrize("name", NONE)
def test_no_difference(convert: Convert, document: Json, name: str) -> None:
    """The callback that somebody has written is named, for nothing can compare it."""
    NONE[name](document, document["queues"])
    out, err = check(convert, document, code=0)
    assert out == "no difference in 4 forwards\n"
    callback = "not compared: a:4730/callback: the callback in Perl and what the JSON has for it"
    assert callback in err


def test_keys_are_compared_wherever_they_are(convert: Convert) -> None:
    """A password in Perl, a file with it here; as Mod-Gearman, 32 bytes of it count."""
    key = convert.folder / "key"
    key.write_text("s" * 32 + "3cret more\n")
    key.chmod(0o600)
    convert.perl(f'$queues->{{"a/q"}} = {{ remoteQueue => "b/q", decrypt => "{"s" * 32}" }};')
    forward = {"remote_queue": "b/q", "decrypt": f"file:{key}", "payload": "raw"}
    check(convert, {"queues": {"a/q": forward}}, code=0)
    key.write_text("another\n")
    assert "decrypt is another key" in check(convert, {"queues": {"a/q": forward}}, code=1)[0]
    convert.perl('$queues->{"a/q"} = { remoteQueue => "b/q", decrypt => "file:/gone" };')
    out, _ = check(convert, {"queues": {"a/q": forward}}, code=1)
    assert "decrypt cannot be compared: /gone: No such file or directory" in out


def test_what_is_left_out_is_not_compared(convert: Convert) -> None:
    convert.perl('$queues->{"a/q"} = "b/q"; $queues->{"a/r"} = "nowhere"; do "./gone";')
    _, err = check(convert, {"queues": {"a/q": "b/q"}}, code=0)
    assert "a/r is left out: its target cannot be used" in err
    assert "./gone is not found from this folder" in err


def test_a_bad_configuration_of_ours(convert: Convert) -> None:
    convert.perl(PERL)
    _, err = check(convert, {"queues": {}}, code=78)
    assert "no queue is configured" in err
