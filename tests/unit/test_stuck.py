"""The forwards that a killed relay stood still in: read, forgotten, and what a file may be."""

import json
from pathlib import Path

import pytest

from gevproxy.stuck import FILE, Stuck

NOW = dict.fromkeys(("a:1/q", "b:1/q", "c:1/q"), "v1")


def leave(folder: Path, *keys: str, **more: str) -> Stuck:
    """Write lines as the watching process does."""
    lines = [{"forward": key, "stage": "rewrite", "time": "T", **more} for key in keys]
    (folder / FILE).write_text("".join(json.dumps(line) + "\n" for line in lines))
    return Stuck(folder)


def test_each_forward_is_named_with_its_stage(tmp_path: Path) -> None:
    stuck = leave(tmp_path, "a:1/q", "b:1/q", "a:1/q")
    assert stuck.read(NOW).keys() == {"a:1/q", "b:1/q"}
    assert all("stage rewrite" in why for why in stuck.read(NOW).values())


def test_what_has_been_changed_since_is_tried(tmp_path: Path) -> None:
    """Other rules or another callback, or none any more; the same ones are not."""
    stuck = leave(tmp_path, "a:1/q", "b:1/q", "c:1/q", version="v1")
    assert stuck.read({"a:1/q": "v1", "b:1/q": "v2"}).keys() == {"a:1/q"}
    stuck.forget({"b:1/q"})
    assert stuck.read(NOW).keys() == {"a:1/q", "c:1/q"}


def test_others_stay_when_some_are_forgotten(tmp_path: Path) -> None:
    """Two forwards may each have had the relay killed, and two relays may share a folder."""
    stuck = leave(tmp_path, "a:1/q", "b:1/q", "c:1/q")
    stuck.forget({"a:1/q", "c:1/q", "unknown"})
    assert stuck.read(NOW).keys() == {"b:1/q"}
    stuck.forget({"b:1/q"})
    assert not list(tmp_path.iterdir())
    stuck.forget({"b:1/q"})


@pytest.mark.parametrize("text", [b"", b"{", b"[]\n3\n", b'{"forward": "x"}\n', b"\xff\n"])
def test_a_file_that_says_nothing_bars_no_forward(tmp_path: Path, text: bytes) -> None:
    (tmp_path / FILE).write_bytes(text)
    assert Stuck(tmp_path).read(NOW) == {}


def test_no_link_is_followed_and_no_folder_is_nothing(tmp_path: Path) -> None:
    leave(tmp_path, "a:1/q").path.rename(tmp_path / "elsewhere")
    (tmp_path / FILE).symlink_to("elsewhere")
    assert Stuck(tmp_path).read(NOW) == {}
    assert Stuck(tmp_path / "none").read(NOW) == {}
