"""Which forwards the relay stood still in for long, as the process that watches it has written.

A job whose stage never ends would have systemd's watchdog kill the relay, and kill it again after
each start, for every forward. So the watching process (watcher.py) leaves a line about it in the
folder for dead letters before that happens, and takes it back where the loop goes on. What is found
at a start bars that forward alone. An end in order forgets it all: somebody was there.
"""

import contextlib
import json
import os
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Final

FILE: Final = "stuck.jsonl"
"""In the folder for dead letters; each line has the forward, the stage and the time."""

_LONGEST: Final = 65_536
"""Bytes that are read: a line has some hundred, and a killed relay leaves one."""


class Stuck:
    """The file with those forwards. A file that cannot be read or written bars no forward."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / FILE

    def read(self) -> dict[str, str]:
        """Return the key of each such forward, with the reason in words."""
        return {
            key: f"the relay stood still in its stage {stage} and was killed ({time}); "
            "mend that, then resume"
            for key, stage, time in self._lines()
        }

    def forget(self, keys: Collection[str]) -> None:
        """Take forwards out: they are to try again. Another relay's lines may stand beside ours."""
        lines = list(self._lines())
        left = [line for line in lines if line[0] not in keys]
        with contextlib.suppress(OSError):
            if not left:
                self.path.unlink()
            elif left != lines:
                new = self.path.with_suffix(".new")
                new.write_text("".join(_line(*each) for each in left))
                new.replace(self.path)

    def _lines(self) -> Iterator[tuple[str, str, str]]:
        try:
            with open(self.path, "rb", opener=_no_link) as file:
                text = file.read(_LONGEST).decode(errors="replace")
        except OSError:
            return
        for line in text.splitlines():
            with contextlib.suppress(ValueError, KeyError, TypeError):  # half a line
                record = json.loads(line)
                yield str(record["forward"]), str(record["stage"]), str(record["time"])


def _no_link(path: str, flags: int) -> int:
    return os.open(path, flags | os.O_NOFOLLOW)


def _line(forward: str, stage: str, time: str) -> str:
    return json.dumps({"forward": forward, "stage": stage, "time": time}) + "\n"
