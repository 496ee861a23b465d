"""The stage `data_callback`: a site's own function, called with the text of each job.

Foreign code runs here and nowhere else, and what it raises ends here: as a StageError that tells
the type and the place of the exception, never its message, which may quote the payload.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from gevproxy import DROP
from gevproxy.config.model import QueueAddress
from gevproxy.errors import StageError
from gevproxy.gearman.job import Job
from gevproxy.stages.loader import Function, raised_at, source_of

SLOW: Final = 0.1
"""Seconds. While a callback runs, every forward waits."""

MAX_UNIQUE: Final = 64
"""Bytes; gearmand refuses a longer unique."""

OnSlow = Callable[[str, float], None]
"""Called with a callback's name and the seconds that it took, when it took over SLOW."""


@dataclass(frozen=True, slots=True)
class CallbackJob:
    """What a callback may know of its job. Names are text; the unique is bytes, as it is returned.

    `source` and `target` are "host:port/queue", `queue` is the source's queue, `handle` the job's
    name at the source ("H:host:17"), for a log of the callback's own.
    """

    source: str
    target: str
    queue: str
    handle: str
    unique: bytes


_GREENLETS_END: Final = "GreenletExit"
"""Raised at a greenlet that is killed. By name, as this floor knows no greenlets."""


class Callback:
    """Calls a function and takes its word: new text, new text and unique, or DROP."""

    __slots__ = ("_clock", "_function", "_name", "_on_slow", "_queue", "_source", "_target")

    def __init__(
        self,
        name: str,
        function: Function,
        source: QueueAddress,
        target: QueueAddress,
        *,
        on_slow: OnSlow | None,
        clock: Callable[[], float],
    ) -> None:
        self._name = name
        self._function = function
        self._source = str(source)
        self._target = str(target)
        self._queue = source.queue
        self._on_slow = on_slow
        self._clock = clock

    @property
    def source(self) -> bytes:
        """The file that the function is written in, as it is now."""
        return source_of(self._function)

    def __call__(self, text: bytes, job: Job) -> tuple[bytes, bytes] | None:
        """Return the text and the unique for the target, or None if the job is to be dropped.

        Raises StageError when the function raises or returns anything that is not agreed. What
        is raised at the function from outside (KeyboardInterrupt, a greenlet's end) passes.
        """
        match self._call(text, job):
            case bytes(changed):
                return changed, job.unique
            case tuple((bytes(changed), bytes(unique))):  # a list is not agreed
                return changed, self._checked(unique)
            case returned if returned is DROP:
                return None
            case returned:
                raise StageError(f"stage data_callback: {self._name} returned {_say(returned)}")

    def _call(self, text: bytes, job: Job) -> object:
        handle = job.handle.decode(errors="backslashreplace")
        about = CallbackJob(self._source, self._target, self._queue, handle, job.unique)
        started = self._clock()
        try:
            return self._function(text, about)
        except BaseException as error:
            if isinstance(error, KeyboardInterrupt) or type(error).__name__ == _GREENLETS_END:
                raise
            what = f"{self._name} raised {type(error).__name__}{raised_at(error)}"
            raise StageError(f"stage data_callback: {what}") from None
        finally:
            seconds = self._clock() - started
            if seconds > SLOW and self._on_slow is not None:
                self._on_slow(self._name, seconds)

    def _checked(self, unique: bytes) -> bytes:
        """Return a unique that fits into a packet's argument and that gearmand takes."""
        if b"\0" in unique:
            raise StageError(f"stage data_callback: {self._name} returned a unique with a NUL")
        if len(unique) > MAX_UNIQUE:
            raise StageError(
                f"stage data_callback: {self._name} returned a unique of {len(unique)} bytes: "
                f"gearmand takes {MAX_UNIQUE}"
            )
        return unique


def _say(returned: object) -> str:
    """Tell the type of what a function returned, and what was probably meant."""
    if returned is None:
        return "NoneType: forgotten return?"
    if isinstance(returned, str):
        return "str: forgotten encode()?"
    kind = type(returned).__name__
    if isinstance(returned, tuple):
        kind = f"({', '.join(type(part).__name__ for part in returned[:4])})"
    return f"{kind}: it must be bytes, (bytes, bytes) or gevproxy.DROP"
