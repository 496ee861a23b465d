"""The dead letters of a relay under test, by the command that an operator uses."""

import json
import subprocess
import sys

from tests.kit.relay import ROOT, Record, Relay

DEADLINE = 60


def command(relay: Relay, *words: str) -> subprocess.CompletedProcess[str]:
    """Run `gevproxy dead-letters` on a relay's folder."""
    place = ["--folder", str(relay.state_folder)]
    return subprocess.run(
        [sys.executable, "-m", "gevproxy", "dead-letters", *words, *place],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=DEADLINE,
        check=False,
    )


def letters(relay: Relay) -> list[Record]:
    """Return all letters."""
    done = command(relay, "list", "--json")
    assert done.returncode == 0, done.stderr
    return [json.loads(line) for line in done.stdout.splitlines()]


def replay(relay: Relay) -> int:
    """Replay all letters; return the exit code."""
    return command(relay, "replay", "--all").returncode
