"""Every configuration in styles/ becomes exactly the JSON, the Python and the lists beside it.

A folder holds `gearman_proxy.cfg`, perhaps a `conf.d`, the `environment` that they want, and what
is to come out: `expected.json`, `expected.txt` for standard error, and `expected.callbacks`. What
a person must do is in the list, or else the JSON is as good as any. Passwords contain "s3cret".
"""

import json

import pytest

from gevproxy.config import load
from gevproxy.stages.loader import load as load_callback
from tests.convert.kit import STYLES, Convert

NAMES = sorted(folder.name for folder in STYLES.iterdir())


def test_there_are_enough() -> None:
    assert len(NAMES) >= 11


@pytest.mark.parametrize("name", NAMES)
def test_a_style_becomes_exactly_this(convert: Convert, name: str) -> None:
    done = convert(*convert.style(name))
    expected = STYLES / name
    callbacks = convert.folder / "callbacks.py"
    written = convert.neutral(callbacks.read_text()) if callbacks.exists() else ""
    wanted = expected / "expected.callbacks"
    assert convert.neutral(done.err) == (expected / "expected.txt").read_text()
    assert convert.neutral(done.out) == (expected / "expected.json").read_text()
    assert written == (wanted.read_text() if wanted.exists() else "")
    assert done.code == (1 if "to do: " in done.err else 0)
    assert "s3cret" not in done.err.replace("/nowhere/s3cret.key", "")


@pytest.mark.parametrize("name", NAMES)
def test_a_style_passes_check_or_has_something_to_do(convert: Convert, name: str) -> None:
    """What is not in the list does not go wrong: the JSON loads, and so do its callbacks."""
    done = convert(*convert.style(name))
    if done.code and "the JSON" in done.err:
        return  # `gevproxy check` has its say in the list itself
    file = convert.folder / "gevproxy.json"
    file.write_text(done.out)
    loaded = load([file], environ={})
    assert len(loaded.forwards) == len(json.loads(done.out)["queues"])
    for forward in loaded.forwards:
        if forward.data_callback:
            load_callback(forward.data_callback)


def test_a_style_is_read_in_the_same_way_each_time(convert: Convert) -> None:
    """Perl shuffles its hashes anew in each run; a loop over one must not matter."""
    arguments = convert.style("03-loops")
    first = convert(*arguments)
    assert all(convert(*arguments) == first for _ in range(3))


@pytest.mark.parametrize("name", ["01-description", "02-variables", "03-loops", "05-heredoc"])
def test_what_was_converted_does_not_differ(convert: Convert, name: str) -> None:
    """With the passwords in the JSON, and in files."""
    paths = convert.style(name)[:-2]
    assert convert(*paths, "--output", "one.json").code == 0
    assert convert(*paths, "--output", "two.json", "--keys-dir", "keys").code == 0
    for file in ("one.json", "two.json"):
        done = convert(*paths, "--check", file)
        assert (done.code, done.out[:13]) == (0, "no difference")
