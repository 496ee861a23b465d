"""The README tells what there is: every event, option and command, and a config that works."""

import re
import shlex
from logging import getLevelName
from pathlib import Path

import pytest

from gevproxy.cli import build_parser
from gevproxy.config import load
from gevproxy.config.schema import option_names
from gevproxy.events import Event

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()
ROWS = [
    [cell.strip() for cell in line.strip("|").split("|")]
    for line in README.splitlines()
    if line.startswith("|")
]
SHELL = "\n".join(re.findall(r"^```sh\n(.*?)^```", README, re.MULTILINE | re.DOTALL))
QUOTED = re.findall(r"`((?:gevproxy|make) [^`]+)`", README)
COMMANDS = sorted({*SHELL.splitlines(), *QUOTED})


@pytest.mark.parametrize("event", Event)
def test_every_event_is_there_with_its_meaning(event: Event) -> None:
    row = [f"`{event.id}`", getLevelName(event.level).lower(), event.meaning, event.remedy]
    assert row in ROWS


def test_every_option_is_there_and_no_other() -> None:
    top, queue = option_names()
    start, end = README.index("## Configuration"), README.index("## What is promised")
    rows = re.findall(r"^\| `(\w+)` \|", README[start:end], re.MULTILINE)
    assert sorted(rows) == sorted([*top, *queue])


@pytest.mark.parametrize("command", [line for line in COMMANDS if "gevproxy " in line])
def test_every_command_is_one(command: str) -> None:
    """The parser ends the program where it does not know a command or an option."""
    program, *arguments = shlex.split(command)
    if Path(program).name == "gevproxy":
        build_parser().parse_args(arguments)


@pytest.mark.parametrize("verb", re.findall(r"\bmake (\w+)$", "\n".join(COMMANDS), re.MULTILINE))
def test_every_verb_is_one(verb: str) -> None:
    assert re.search(rf"^{verb}:", (ROOT / "Makefile").read_text(), re.MULTILINE)


def test_the_first_configuration_is_a_good_one(tmp_path: Path) -> None:
    file = tmp_path / "gevproxy.json"
    file.write_text(README.split("```json\n")[1].split("```")[0])
    assert len(file.read_text().splitlines()) <= 10
    assert len(load([file], environ={}).forwards) == 2
