"""What the Perl proxy's configuration says, in our terms, before it is written down anywhere."""

from dataclasses import dataclass, field

from gevproxy.config import Payload, QueueAddress, Substitute
from gevproxy.convert.evaluate import Code


@dataclass(frozen=True, slots=True)
class Key:
    """A key: the password itself, or the path of a file that holds it."""

    secret: bytes = field(default=b"", repr=False)
    path: str = ""


@dataclass(frozen=True, slots=True)
class Callback:
    """A callback that a person must write: the name of its function, and its Perl."""

    function: str
    code: Code
    why: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Forward:
    """One forward. `workers` is 1 on an asynchronous one."""

    source: QueueAddress
    target: QueueAddress
    asynchronous: bool = True
    workers: int = 1
    decrypt: Key | None = None
    encrypt: Key | None = None
    rewrite: tuple[Substitute, ...] = ()
    callback: Callback | None = None
    payload: Payload = Payload.BASE64


@dataclass(slots=True, kw_only=True)
class Converted:
    """The whole configuration. `left_out` and `to_do` are a person's; `notes` are good to know."""

    forwards: list[Forward] = field(default_factory=list)
    status_queue: QueueAddress | None = None
    log_file: str | None = None
    debug: bool = False
    left_out: list[str] = field(default_factory=list)
    to_do: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
