"""What a configuration is once it has been read and checked: frozen values, nothing else.

Compared by value, so that a reload can tell which forwards changed. Keys are kept as they were
written (`file:PATH`, `credential:NAME`, a password) and never shown by repr().
Nothing here reads a file, looks at the environment or knows JSON.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum
from pathlib import Path

from gevproxy.gearman.job import Priority, Server

MIB = 1024 * 1024

DEFAULT_WINDOW_BYTES = 64 * MIB
"""Of one forward: a thousand large check results, and some."""

ALL_WINDOWS_BYTES = 512 * MIB
"""What the default windows of all forwards share, so that many forwards do not exhaust a host."""


class OnDisconnect(Enum):
    """What becomes of a synchronous forward's jobs when its target goes away."""

    REQUEUE = "requeue"
    FAIL = "fail"


class UniquePolicy(Enum):
    """Whether a job's unique is passed on to the target."""

    KEEP = "keep"
    NONE = "none"


class Payload(Enum):
    """How the text of a job is packed while it is not encrypted."""

    BASE64 = "base64"
    RAW = "raw"


class Expect(Enum):
    """What a decoded text must look like."""

    MOD_GEARMAN = "mod_gearman"
    ANY = "any"


class OnLate(Enum):
    """What becomes of a check over `max_age`."""

    ANSWER = "answer"
    DROP = "drop"
    DEAD_LETTER = "dead_letter"


@dataclass(frozen=True, slots=True, order=True)
class QueueAddress:
    """A queue on a job server. `queue` is what Gearman calls a function, as text."""

    server: Server
    queue: str

    def __str__(self) -> str:
        return f"{self.server}/{self.queue}"


@dataclass(frozen=True, slots=True)
class Substitute:
    """Rewrite rule: every match of `pattern` (compiled with re.MULTILINE) becomes `replace`.

    Both are UTF-8 bytes, as payloads are bytes; `replace` is a template for `re.sub`.
    """

    pattern: bytes
    replace: bytes


@dataclass(frozen=True, slots=True)
class SetField:
    """Rewrite rule: the field `name` of a Mod-Gearman text becomes `value`. Both are UTF-8."""

    name: bytes
    value: bytes


Rewrite = Substitute | SetField


@dataclass(frozen=True, slots=True, kw_only=True)
class TlsConfig:
    """How to speak TLS with a server, as it is written; what is in the files is not known here.

    Without `ca` the system's certificate authorities are trusted; `cert` and `key` come together.
    `pins` are SHA-256 sums of public keys. `file`, `pointer` and `lines` are where it is written.
    """

    ca: Path | None = None
    cert: Path | None = None
    key: Path | None = None
    server_name: str | None = None
    pins: frozenset[bytes] = frozenset()
    file: str = field(default="", compare=False)
    pointer: str = field(default="", compare=False)
    lines: Mapping[str, int] = field(default_factory=dict, compare=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class MetricsConfig:
    """Where metrics are served: an IP address and a port. `file` and `line` are where that is."""

    host: str
    port: int
    file: str = field(default="", compare=False)
    line: int = field(default=0, compare=False)

    def __str__(self) -> str:
        return str(Server(self.host, self.port))


@dataclass(frozen=True, slots=True, kw_only=True)
class ForwardConfig:
    """One forward, with every default filled in.

    A synchronous forward has window == workers, hold == 0, unique NONE and no max_age; on an
    asynchronous one workers, on_disconnect and timeout mean nothing and have their defaults. `load`
    sees to both. `hold`, `timeout` and `max_age` are seconds; None is for ever. `decrypt` is tried
    in order. `file` and `line` are where it is written; two that differ in nothing else are equal.
    """

    source: QueueAddress
    target: QueueAddress
    asynchronous: bool = True
    workers: int = 1
    on_disconnect: OnDisconnect = OnDisconnect.REQUEUE
    timeout: float | None = None
    window: int = 1000
    window_bytes: int = DEFAULT_WINDOW_BYTES
    hold: float | None = 30.0
    priority: Priority = Priority.NORMAL
    unique: UniquePolicy = UniquePolicy.KEEP
    decrypt: tuple[str, ...] = field(default=(), repr=False)
    encrypt: str | None = field(default=None, repr=False)
    rewrite: tuple[Rewrite, ...] = ()
    data_callback: str | None = None
    payload: Payload = Payload.BASE64
    expect: Expect = Expect.ANY
    max_age: float | None = None
    on_late: OnLate = OnLate.ANSWER
    max_target_waiting: int | None = None
    file: str = field(default="", compare=False)
    line: int = field(default=0, compare=False)

    @property
    def key(self) -> str:
        """The forward's name in logs, counters and commands: its source."""
        return str(self.source)


@dataclass(frozen=True, slots=True, kw_only=True)
class Config:
    """A whole configuration. Times are seconds, sizes bytes. `poll` is 0 where nobody is asked.

    `dead_letters` is None only where neither the configuration nor the environment names a folder.
    `log_file` is "stderr", "stdout" or a path. A server that is not in `servers` speaks plain text.
    """

    forwards: tuple[ForwardConfig, ...]
    servers: Mapping[Server, TlsConfig] = field(default_factory=dict)
    status_queue: QueueAddress | None = None
    status_critical_after: float = 300.0
    status_certificate_days: float = 14.0
    metrics: MetricsConfig | None = None
    dead_letters: Path | None = None
    log_file: str = "stderr"
    debug: bool = False
    drain: float = 10.0
    max_packet: int = 64 * MIB
    poll: float = 10.0
