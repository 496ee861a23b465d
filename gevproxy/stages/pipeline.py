"""A forward's stages in their order, as one thing that is called with each job.

Reads key files and callbacks when it is built, once; afterwards nothing here touches a file, keeps
anything of a job, waits or yields.
"""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from hashlib import blake2b
from typing import Final, NamedTuple, TypeVar

from gevproxy.config.keys import resolve_key
from gevproxy.config.model import Expect, ForwardConfig, Payload
from gevproxy.config.source import child_pointer
from gevproxy.errors import ConfigError, Problem, StageError
from gevproxy.gearman.job import Job
from gevproxy.stages.callback import Callback, OnSlow
from gevproxy.stages.crypto import Decrypt, Encrypt
from gevproxy.stages.loader import load
from gevproxy.stages.payload import Transform, check, decode, pack
from gevproxy.stages.rewrite import compile_rules

_T = TypeVar("_T")

_LONGEST_KEY: Final = 400
"""Bytes of a forward's key in a note; more is cut off."""


class Notes:
    """Which stage of which forward runs, for whoever finds the loop standing still.

    `version` tells rules and code that were changed from those that the loop stood still in.
    A note is written around every stage of every job or row, so it is ready beforehand, as long as
    its place: 0.05 us each here, where decrypting a single check takes 3.
    """

    __slots__ = ("_key", "nowhere", "place", "version")

    def __init__(self, key: str, place: memoryview | None, version: str = "") -> None:
        self._key = key.encode()[:_LONGEST_KEY]
        self.version = version
        self.place = memoryview(bytearray(512)) if place is None else place
        self.nowhere = bytes(len(self.place))

    def note(self, stage: str) -> bytes:
        """Return what is to be written while a stage runs."""
        note = b"\n".join((self._key, stage.encode(), self.version.encode()))
        return note.ljust(len(self.place), b"\0")


Row = Callable[[Sequence[bytes]], list[bytes]]
"""A step for many payloads or texts, which does what its Transform does for each."""

LARGEST_ROW: Final = 1 << 20
"""Bytes that go through the stages in one row: it is in memory twice meanwhile."""


class Step(NamedTuple):
    """What a pipeline does, behind the note of its stage: for one job, for a row of them."""

    note: bytes
    one: Transform
    row: Row


def _step(note: bytes, transform: Transform) -> Step:
    if isinstance(transform, Decrypt | Encrypt):
        return Step(note, transform, transform.row)
    return Step(note, transform, lambda texts: [transform(text) for text in texts])


class Pipeline:
    """From a job of the source to the job for the target. Keeps nothing from job to job.

    `version` changes with the rules to rewrite, and with the file that the callback is written in.
    """

    __slots__ = ("_after", "_before", "_callback", "_in_callback", "_nowhere", "_place", "version")

    def __init__(
        self,
        before: Sequence[Step],
        callback: Callback | None,
        after: Sequence[Step],
        notes: Notes,
    ) -> None:
        self._before = tuple(before)
        self._callback = callback
        self._after = tuple(after)
        self._in_callback = notes.note("data_callback")
        self._place = notes.place
        self._nowhere = notes.nowhere
        self.version = notes.version

    def __call__(self, job: Job) -> Job | None:
        """Return the job with the unique and workload for the target; None: the job is dropped.

        Raises StageError, and no other exception, when a stage refuses the job.
        """
        handle, function, unique, workload = job
        place = self._place
        try:
            for step in self._before:
                place[:] = step.note
                workload = step.one(workload)
            if self._callback is not None:
                place[:] = self._in_callback
                answer = self._callback(workload, job)
                if answer is None:
                    return None
                workload, unique = answer
            for step in self._after:
                place[:] = step.note
                workload = step.one(workload)
        finally:
            place[:] = self._nowhere
        return Job(handle, function, unique, workload)

    def row(self, jobs: Sequence[Job]) -> list[bytes] | None:
        """Return the workloads for the target of jobs that came together, or None.

        None stands for: call with each job alone. So it is where one of them is refused, which
        then happens to that one; where a callback has to be called, which may wait and knows its
        job; where the row is too large; and for a single job.
        """
        row = [job.workload for job in jobs]
        if self._callback is not None or len(row) == 1 or sum(map(len, row)) > LARGEST_ROW:
            return None
        place = self._place
        try:
            for step in self._before + self._after:
                place[:] = step.note
                row = step.row(row)
        except StageError:
            return None
        finally:
            place[:] = self._nowhere
        return row


def build(
    forward: ForwardConfig,
    *,
    environ: Mapping[str, str],
    on_slow: OnSlow | None = None,
    place: memoryview | None = None,
    clock: Callable[[], float] = time.perf_counter,
) -> Pipeline | None:
    """Return what a forward does to its jobs, or None if it passes them on untouched.

    Keys and callbacks are read here, so a new key or new code needs a new pipeline; the old one
    goes on with the old. `environ` is asked for $CREDENTIALS_DIRECTORY, `clock` for the seconds
    that a callback takes, which `on_slow` is told of; which stage runs is noted in `place`. Raises
    ConfigError with all problems; their pointers lead to the forward's options, in no file, as a
    forward does not know its own.
    """
    has_stage = forward.decrypt or forward.rewrite or forward.encrypt is not None
    if not has_stage and forward.data_callback is None:
        return None
    builder = _Builder(forward, environ)
    decrypt, rewrite = builder.decrypt(), builder.rewrite()
    callbacks = builder.data_callback(on_slow, clock)
    encrypt = builder.encrypt()
    if builder.problems:
        raise ConfigError(tuple(builder.problems))
    callback = callbacks[0] if callbacks else None
    notes = Notes(forward.key, place, _version(forward, callback))
    before = [_step(notes.note("decrypt"), step) for step in decrypt]
    before += [_step(notes.note("rewrite"), step) for step in rewrite]
    after = [_step(notes.note("encrypt"), step) for step in encrypt]
    return Pipeline(before, callback, after, notes)


def _version(forward: ForwardConfig, callback: Callback | None) -> str:
    """Return a digest of what may be to blame for a job that does not come out of its stage."""
    what = repr((forward.rewrite, forward.data_callback)).encode()
    return blake2b(what + (callback.source if callback else b""), digest_size=8).hexdigest()


class _Builder:
    """Makes the stages and collects what is wrong with any of them."""

    def __init__(self, forward: ForwardConfig, environ: Mapping[str, str]) -> None:
        self.problems: list[Problem] = []
        self._forward = forward
        self._environ = environ

    def decrypt(self) -> list[Transform]:
        """Return the steps from a payload to its text."""
        forward = self._forward
        any_text = forward.expect is Expect.ANY
        if forward.decrypt:
            several = len(forward.decrypt) > 1
            keys = [
                key
                for position, spec in enumerate(forward.decrypt)
                for key in self._key(f"decrypt/{position}" if several else "decrypt", spec)
            ]
            return [Decrypt(keys, any_text=any_text)]
        steps: list[Transform] = [decode] if forward.payload is Payload.BASE64 else []
        return steps if any_text else [*steps, check]

    def rewrite(self) -> list[Transform]:
        """Return a step for each rule."""
        return self._try("rewrite", lambda: compile_rules(self._forward.rewrite))

    def data_callback(self, on_slow: OnSlow | None, clock: Callable[[], float]) -> list[Callback]:
        """Return the callback, if there is one."""
        forward = self._forward
        name = forward.data_callback
        if name is None:
            return []
        return [
            Callback(name, function, forward.source, forward.target, on_slow=on_slow, clock=clock)
            for function in self._try("data_callback", lambda: [load(name)])
        ]

    def encrypt(self) -> list[Transform]:
        """Return the steps from a text to its payload."""
        spec = self._forward.encrypt
        if spec is not None:
            return [Encrypt(key) for key in self._key("encrypt", spec)]
        return [pack] if self._forward.payload is Payload.BASE64 else []

    def _key(self, option: str, spec: str) -> list[bytes]:
        return self._try(option, lambda: [resolve_key(spec, environ=self._environ)])

    def _try(self, option: str, make: Callable[[], list[_T]]) -> list[_T]:
        """Return what `make` does; nothing, and its problems with their place, if it fails."""
        try:
            return make()
        except ConfigError as error:
            pointer = f"{child_pointer('/queues', self._forward.key)}/{option}"
            self.problems += [replace(problem, pointer=pointer) for problem in error.problems]
            return []
