"""The command line `gevproxy dead-letters`, in this process."""

from pathlib import Path

from gevproxy.cli import main


def dead_letters(folder: Path, *arguments: str) -> int:
    """Run a verb on a folder and return the exit code."""
    return run(*arguments, "--folder", str(folder))


def run(*arguments: str) -> int:
    """Run what follows `gevproxy dead-letters` and return the exit code."""
    return main(["dead-letters", *arguments])
