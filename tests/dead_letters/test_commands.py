"""`gevproxy dead-letters list`, `show` and `purge`: what a person sees, and what is removed."""

import io
import json
import re
from pathlib import Path

import pytest

from gevproxy.dead_letters import DeadLetters, Letter
from tests.dead_letters.command import dead_letters, run
from tests.dead_letters.letters import content, letter, letters, written

OTHER = "[::1]:4731/other"


def ids(folder: Path) -> list[str]:
    """Return the ID of every letter, in order."""
    box = DeadLetters(folder)
    return [entry.id for segment in box.segments() for entry in box.read(segment)]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Give a folder of three letters in two segments; the last is another forward's."""
    folder = tmp_path / "state"
    box = DeadLetters(folder)
    box.write(letters(2))
    box.close_current()
    box.write([letter(2, OTHER)])
    return folder


# list


def test_the_table(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert dead_letters(folder, "list") == 0
    head, *rows, empty, first, second, total = capsys.readouterr().out.splitlines()
    assert head.split() == ["ID", "TIME", "BYTES", "FORWARD", "REASON"]
    assert [row.split()[0] for row in rows] == ids(folder)
    assert rows[0].endswith(
        "  2026-10-06 12:00:00Z          9  127.0.0.1:4730/q  stage decrypt: wrong key?"
    )
    assert empty == ""
    assert first.split() == ["2", "127.0.0.1:4730/q"]
    assert second.split() == ["1", OTHER]
    assert total.strip() == f"3  in {folder}, 27 bytes of payload"


def test_json_has_all_but_the_payload(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert dead_letters(folder, "list", "--json") == 0
    first, *others = map(json.loads, capsys.readouterr().out.splitlines())
    assert first == {
        "id": ids(folder)[0],
        "time": "2026-10-06T12:00:00.123456Z",
        "forward": "127.0.0.1:4730/q",
        "source": "127.0.0.1:4730/q",
        "target": "127.0.0.2:4730/q",
        "handle": "H:a:0",
        "unique": "unique-0",
        "reason": "stage decrypt: wrong key?",
        "bytes": 9,
    }
    assert [each["unique"] for each in others] == ["unique-1", "unique-2"]


def test_filters(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A forward may be named in any spelling that the configuration takes."""
    assert dead_letters(folder, "list", "--forward", "[0::1]:4731/other", "--json") == 0
    assert [json.loads(line)["unique"] for line in capsys.readouterr().out.splitlines()] == [
        "unique-2"
    ]
    assert dead_letters(folder, "list", "--limit", "2", "--json") == 0
    assert len(capsys.readouterr().out.splitlines()) == 2


@pytest.mark.parametrize("arguments", [("--limit", "0"), ("--limit", "x"), ("--forward", "x")])
def test_filters_that_mean_nothing(folder: Path, arguments: tuple[str, str]) -> None:
    with pytest.raises(SystemExit) as end:
        dead_letters(folder, "list", *arguments)
    assert end.value.code == 2


def test_nothing_there(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert dead_letters(tmp_path, "list") == 0
    assert capsys.readouterr().out == f"no dead letters in {tmp_path}\n"
    assert dead_letters(tmp_path / "none", "list") == 0
    assert "there is no such folder" in capsys.readouterr().out


def test_a_damaged_line_is_named(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with (folder / "dead-letters.jsonl").open("ab") as file:
        file.write(b"{\n")
    assert dead_letters(folder, "list") == 0
    output = capsys.readouterr()
    assert "3  in" in output.out
    assert re.search(r"(\w{12}): this line is damaged; `purge \1` removes it", output.err)


def test_a_text_from_outside_plays_no_tricks_on_the_terminal(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    evil = "\x1b[2Jé\n\u202e"
    fields = dict.fromkeys(("forward", "source", "target", "reason"), evil)
    blob = evil.encode()
    time = letter().time
    DeadLetters(tmp_path).write(
        [Letter(**fields, time=time, handle=blob, unique=blob, payload=blob)]
    )
    for arguments in (("list",), ("list", "--json"), ("show", *ids(tmp_path))):
        assert dead_letters(tmp_path, *arguments) == 0
        output = capsys.readouterr().out
        assert output.replace("\n", "").isprintable()


# show


def test_show(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert dead_letters(folder, "show", ids(folder)[1]) == 0
    assert capsys.readouterr().out.splitlines() == [
        f"id:      {ids(folder)[1]}",
        "time:    2026-10-06T12:00:01.123456Z",
        "forward: 127.0.0.1:4730/q",
        "source:  127.0.0.1:4730/q",
        "target:  127.0.0.2:4730/q",
        "handle:  H:a:1",
        "unique:  unique-1",
        "reason:  stage decrypt: wrong key?",
        "bytes:   9",
        "",
        "payload 1",
    ]


def test_the_payload_as_it_is(tmp_path: Path, capsysbinary: pytest.CaptureFixture[bytes]) -> None:
    payload = bytes(range(256))
    DeadLetters(tmp_path).write([letter(payload=payload)])
    assert dead_letters(tmp_path, "show", *ids(tmp_path), "--payload") == 0
    assert capsysbinary.readouterr().out == payload


def test_an_unknown_id(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert dead_letters(folder, "show", "abc") == 1
    assert capsys.readouterr().err == "no dead letter has the ID abc\n"


# purge


def test_purge_of_some(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert dead_letters(folder, "purge", ids(folder)[0], ids(folder)[2], "--yes") == 0
    assert written(folder) == [letter(1)]
    assert "removed 2\n" in capsys.readouterr().out


def test_purge_of_a_forward(folder: Path) -> None:
    assert dead_letters(folder, "purge", "--forward", OTHER, "--yes") == 0
    assert written(folder) == letters(2)


def test_purge_of_all_takes_damaged_lines_too(folder: Path) -> None:
    with (folder / "dead-letters.jsonl").open("ab") as file:
        file.write(b"{\n")
    assert dead_letters(folder, "purge", "--all", "--yes") == 0
    assert content(folder) == {}


@pytest.mark.parametrize(("answer", "left"), [("yes\n", 0), ("no\n", 3), ("\n", 3), ("", 3)])
def test_purge_asks(folder: Path, monkeypatch: pytest.MonkeyPatch, answer: str, left: int) -> None:
    """Where nobody is there to answer, nothing is removed."""
    monkeypatch.setattr("sys.stdin", io.StringIO(answer))
    assert dead_letters(folder, "purge", "--all") == (1 if left else 0)
    assert len(written(folder)) == left


def test_purge_spares_what_arrives_while_it_asks(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def answer(_: str) -> str:
        DeadLetters(folder).write([letter(3)])
        return "yes"

    monkeypatch.setattr("builtins.input", answer)
    assert dead_letters(folder, "purge", "--all") == 0
    assert written(folder) == [letter(3)]


@pytest.mark.parametrize("verb", ["replay", "purge"])
@pytest.mark.parametrize("arguments", [(), ("--limit", "1"), ("abc", "--all")])
def test_what_is_meant_must_be_said(folder: Path, verb: str, arguments: tuple[str, ...]) -> None:
    before = content(folder)
    assert dead_letters(folder, verb, *arguments) == 1
    assert content(folder) == before


# Where the folder is.


def test_the_folder_of_a_configuration(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    settings = {"queues": {"a/q": "b/q"}, "dead_letters": str(folder)}
    file = tmp_path / "gevproxy.json"
    file.write_text(json.dumps(settings))
    assert run("list", "--config", str(file)) == 0
    assert f"3  in {folder}" in capsys.readouterr().out


def test_the_folder_of_the_unit(
    folder: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("STATE_DIRECTORY", f"{folder}:/elsewhere")
    file = tmp_path / "gevproxy.json"
    file.write_text(json.dumps({"queues": {"a/q": "b/q"}}))
    assert run("list", "--config", str(file)) == 0
    assert f"3  in {folder}" in capsys.readouterr().out


def test_a_configuration_that_cannot_be_used(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run("list", "--config", str(tmp_path / "none.json")) == 78
    assert "--folder PATH" in capsys.readouterr().err


def test_no_folder_anywhere(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("STATE_DIRECTORY", "XDG_STATE_HOME", "HOME"):
        monkeypatch.delenv(name, raising=False)
    file = tmp_path / "gevproxy.json"
    file.write_text(json.dumps({"queues": {"a/q": "b/q"}}))
    assert run("list", "--config", str(file)) == 1
    assert "--folder PATH" in capsys.readouterr().err
