"""Every error that this program raises on purpose; some are declared where they are raised.

    GevproxyError
    +-- ConfigError            the configuration cannot be used; carries every problem found
    +-- StageError             a stage refuses a job (wrong key, failing callback, ...)
    +-- DeadLetterError        a dead letter cannot be written or read (dead_letters.py)
    +-- ControlError           a running relay gave no answer (control_client.py)
    +-- RightsError            another user's rights cannot be taken (rights.py)
    +-- Untranslatable         a callback in Perl that is no rule of ours (convert/substitute.py)
    +-- DemoError              the demo cannot go on (demo/processes.py)
    +-- GearmanError           something about a peer
        +-- ProtocolError      the peer broke the Gearman protocol; its connection must go
        |   +-- PacketTooLarge a packet over `max_packet` was announced
        +-- LinkError          the network or the peer ended a connection, or none could be made

Error texts are read by operators and land in logs: they never contain a key or a payload.
This file may import nothing of the project.
"""

from dataclasses import dataclass


class GevproxyError(Exception):
    """The root of the tree above."""


@dataclass(frozen=True, slots=True, order=True)
class Problem:
    """One thing that is wrong with a configuration, worded for the person who wrote it.

    `file` is a path as given by the user, `line` counts from 1 (0: not known or the whole file),
    `pointer` is an RFC 6901 JSON pointer ("" is the whole document), `message` says what is wrong
    and what to do about it.
    """

    file: str
    line: int
    pointer: str
    message: str

    def __str__(self) -> str:
        place = f"{self.file}:{self.line}" if self.line else self.file
        return (
            f"{place}: {self.pointer}: {self.message}"
            if self.pointer
            else f"{place}: {self.message}"
        )


class ConfigError(GevproxyError):
    """The configuration cannot be used. `problems` holds all of them, most useful first."""

    def __init__(self, problems: tuple[Problem, ...]) -> None:
        super().__init__("\n".join(str(problem) for problem in problems))
        self.problems = problems


class StageError(GevproxyError):
    """A stage refuses a job. The text names the stage and a likely cause, never the payload."""


class GearmanError(GevproxyError):
    """Something about a Gearman peer."""


class ProtocolError(GearmanError):
    """The peer sent what the Gearman protocol does not allow; the connection must be dropped."""


class PacketTooLarge(ProtocolError):  # noqa: N818 - it reads as what happened
    """A packet announced more than `max_packet` bytes.

    `handle` is the first argument as far as it was seen (a job's handle in JOB_ASSIGN), `size` and
    `limit` count the bytes of the packet's body.
    """

    def __init__(self, name: str, handle: bytes, size: int, limit: int) -> None:
        what = f"{name} of job {handle.decode(errors='backslashreplace')}" if handle else name
        super().__init__(f"{what} has {size} bytes, over max_packet ({limit})")
        self.name = name
        self.handle = handle
        self.size = size
        self.limit = limit


class LinkError(GearmanError):
    """A connection ended or could not be made. The text is a short reason: "refused"."""
