"""Which forwards the relay stood still in for long, as the process that watches it has written.

A job whose stage never ends would have systemd's watchdog kill the relay, and kill it again after
each start, for every forward. So the watching process (watcher.py) leaves a line about it in the
folder for dead letters before that happens, and takes it back where the loop goes on. What is found
at a start bars that forward alone, unless its rules or its callback have been changed since: an
operator may have mended them before the start, and a relay that stands still ends in no order. An
end in order forgets it all: somebody was there.
"""

import contextlib
import json
import os
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from typing import Final, NamedTuple

FILE: Final = "stuck.jsonl"
"""In the folder for dead letters; each line has what a `_Line` has."""

_LONGEST: Final = 65_536
"""Bytes that are read: a line has some hundred, and a killed relay leaves one."""


class _Line(NamedTuple):
    forward: str
    stage: str
    version: str  # of the forward's pipeline; "" is not known
    time: str


class Stuck:
    """The file with those forwards. A file that cannot be read or written bars no forward."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / FILE

    def read(self, versions: Mapping[str, str]) -> dict[str, str]:
        """Return the key of each such forward, with the reason in words.

        `versions` has the present one of each forward with stages; one that was changed is no case.
        """
        return {
            line.forward: f"the relay stood still in its stage {line.stage} and was killed "
            f"({line.time}); mend that, then resume"
            for line in self._lines()
            if line.forward in versions and line.version in ("", versions[line.forward])
        }

    def forget(self, keys: Collection[str]) -> None:
        """Take forwards out: they are to try again. Another relay's lines may stand beside ours."""
        lines = list(self._lines())
        left = [line for line in lines if line.forward not in keys]
        with contextlib.suppress(OSError):
            if not left:
                self.path.unlink()
            elif left != lines:
                new = self.path.with_suffix(".new")
                new.write_text("".join(json.dumps(each._asdict()) + "\n" for each in left))
                new.replace(self.path)

    def _lines(self) -> Iterator[_Line]:
        try:
            with open(self.path, "rb", opener=_no_link) as file:
                text = file.read(_LONGEST).decode(errors="replace")
        except OSError:
            return
        for line in text.splitlines():
            with contextlib.suppress(ValueError, KeyError, TypeError):  # half a line
                record = json.loads(line)
                named = {name: str(record[name]) for name in ("forward", "stage", "time")}
                yield _Line(version=str(record.get("version", "")), **named)


def _no_link(path: str, flags: int) -> int:
    return os.open(path, flags | os.O_NOFOLLOW)
