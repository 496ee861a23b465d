"""Letters, and what is in a folder of them."""

from datetime import UTC, datetime, timedelta
from pathlib import Path

from gevproxy.dead_letters import DeadLetters, Letter

TIME = datetime(2026, 10, 6, 12, 0, 0, 123456, UTC)


def letter(
    number: int = 0, source: str = "127.0.0.1:4730/q", payload: bytes | None = None
) -> Letter:
    """Return a letter that its number sets apart from others."""
    return Letter(
        time=TIME + timedelta(seconds=number),
        forward=source,
        source=source,
        target="127.0.0.2:4730/q",
        handle=b"H:a:%d" % number,
        unique=b"unique-%d" % number,
        reason="stage decrypt: wrong key?",
        payload=b"payload %d" % number if payload is None else payload,
    )


def letters(count: int, source: str = "127.0.0.1:4730/q") -> list[Letter]:
    """Return so many letters."""
    return [letter(number, source) for number in range(count)]


def written(folder: Path) -> list[Letter]:
    """Return all letters in a folder, in the order in which they are read."""
    box = DeadLetters(folder)
    return [
        entry.letter
        for segment in box.segments()
        for entry in box.read(segment)
        if entry.letter is not None
    ]


def content(folder: Path) -> dict[str, bytes]:
    """Return every file of a folder, hidden ones too."""
    return {path.name: path.read_bytes() for path in folder.iterdir()}
