"""The demo as a process, and what it may not leave behind."""

import os
import re
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Self

from tests.kit.eventually import eventually

ROOT = Path(__file__).parents[2]
DEADLINE = 60.0  # seconds for a whole demo of some hundred jobs on a loaded machine

# The command without the package `gear`.
WITHOUT_GEAR = """
import sys
sys.modules["gear"] = None
from gevproxy.__main__ import main
sys.exit(main())
"""


class Demo:
    """`gevproxy demo` with a folder for temporary files of its own, by which it is recognized.

    Leaving the context checks that no file and no process of it is left.
    """

    def __init__(
        self,
        folder: Path,
        *arguments: str,
        path: str | None = None,
        program: Sequence[str] = (sys.executable, "-m", "gevproxy"),
        cwd: Path = ROOT,
    ) -> None:
        self.files = folder / "tmp"
        self.files.mkdir()
        self.output = folder / "output"
        environment = {**os.environ, "TMPDIR": str(self.files)}
        if path is not None:
            environment["PATH"] = path
        with self.output.open("wb") as output:
            self.process = subprocess.Popen(
                [*program, "demo", *arguments],
                env=environment,
                cwd=cwd,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
            )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        self.process.kill()
        self.process.wait()
        try:
            if kind is None:
                # The process that watches the relay's loop ends just after it.
                eventually(lambda: not self.children(), 10.0, what="it left processes behind")
        finally:
            for pid in self.children():
                os.kill(pid, signal.SIGKILL)
        if kind is None:
            assert not list(self.files.iterdir()), "it left files behind"

    @property
    def text(self) -> str:
        """Return what it has written."""
        return self.output.read_text()

    def wait(self) -> int:
        """Wait for its end and return the exit code."""
        return self.process.wait(DEADLINE)

    def wait_for(self, text: str) -> None:
        """Wait until it has written this."""
        eventually(lambda: text in self.text, DEADLINE, what=text)

    def row(self, name: str) -> int:
        """Return a number of the table at the end."""
        found = re.search(rf"^  {re.escape(name)} +([\d,]+)$", self.text, re.MULTILINE)
        assert found, self.text
        return int(found[1].replace(",", ""))

    def children(self, name: str = "") -> list[int]:
        """Return the processes it has started whose command line holds this name."""
        marker = f"TMPDIR={self.files}\0".encode()
        found = []
        for folder in Path("/proc").glob("[0-9]*"):
            try:
                ours = marker in (folder / "environ").read_bytes()
                line = (folder / "cmdline").read_bytes().replace(b"\0", b" ").decode()
            except OSError:  # it has ended, or is not ours
                continue
            if ours and name in line and int(folder.name) != self.process.pid:
                found.append(int(folder.name))
        return found
