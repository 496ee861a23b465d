"""A worker's end of one connection, sans-IO: grab credit, sleep and wake, complete.

Many jobs are asked for and held at once on one connection (gearmand allows it: 50 GRAB_JOB_UNIQ
give 50 JOB_ASSIGN_UNIQ). This file decides nothing about when to grab; it knows what is
outstanding and refuses what was never asked for. CANT_DO is never sent: gearmand takes held and
granted jobs back on it, and their completions get JOB_NOT_FOUND.

A worker may submit jobs too, on the same connection: that is how a late check is answered.
"""

from collections import deque
from collections.abc import Iterable
from itertools import groupby
from typing import Final, NamedTuple

from gevproxy.errors import ProtocolError
from gevproxy.gearman.buffer import Oversized
from gevproxy.gearman.client import Confirmed, Refused
from gevproxy.gearman.job import Handle, Job
from gevproxy.gearman.packet import HEADER, MAX_PACKET, REQUEST, PacketType, encode
from gevproxy.gearman.peer import MAX_NAME, Peer, in_words, long_name

_new_tuple: Final = tuple.__new__
_GRAB: Final = encode(PacketType.GRAB_JOB_UNIQ)

_JOB_NOT_FOUND: Final = b"JOB_NOT_FOUND"
"""The code of an ERROR about a completion; a submission gets any other, in its place."""


class Assigned(NamedTuple):
    """Jobs that the server has assigned to us, in their order."""

    jobs: list[Job]


class ServerError(NamedTuple):
    """An ERROR packet: `code` and `text` as the server words them. JOB_NOT_FOUND is not fatal."""

    code: str
    text: str


class Worker(Peer):
    """A worker for one function.

    `outstanding` counts grabs without an answer; `wanted` is how many should be: it grows by one
    with each job, so it doubles with every round trip in which each grab brought a job, and falls
    to one when the queue is empty. `empty` and `asleep` are what the server last said and was told.

    Events of `receive`: Assigned, ServerError, and Oversized for a job over `max_packet`; Confirmed
    and Refused for what was submitted.
    """

    __slots__ = ("_function", "_submitted", "asleep", "empty", "outstanding", "wanted")

    def __init__(self, function: bytes, max_packet: int = MAX_PACKET) -> None:
        super().__init__(max_packet)
        self._function = function
        self.outstanding = 0
        self.wanted = 1
        self.empty = False
        self.asleep = False
        self._submitted: deque[object] = deque()  # tokens, in the order of their answers

    def register(self, client_id: bytes) -> None:
        """Say who we are and what we take. `client_id` holds no space: gearadmin splits there."""
        if not client_id or b" " in client_id:
            raise ValueError("a client id is not empty and holds no space")
        self.outbox.add(PacketType.SET_CLIENT_ID, client_id)
        self.outbox.add(PacketType.CAN_DO, self._function)

    def grab(self, count: int = 1) -> None:
        """Ask for `count` jobs; a grab also ends a sleep."""
        self.outbox.add_bytes(_GRAB * count)
        self.outstanding += count
        self.asleep = False

    def sleep(self) -> None:
        """Ask to be woken by a NOOP when there is a job. Illegal while a grab is outstanding."""
        if self.outstanding:
            raise ValueError("a worker with an outstanding grab cannot sleep")
        self.outbox.add(PacketType.PRE_SLEEP)
        self.asleep = True

    def complete(self, handle: Handle, result: bytes = b"") -> None:
        """End a job with a result, which the submitter of a foreground job gets."""
        self.outbox.add(PacketType.WORK_COMPLETE, handle, result)

    def complete_all(self, handles: Iterable[Handle]) -> None:
        """End jobs with an empty result: `complete` for many, at a tenth of its price for each."""
        packets: list[bytes] = []
        for size, alike in groupby(handles, len):
            head = HEADER.pack(REQUEST, PacketType.WORK_COMPLETE, size + 1)
            packets += head, (b"\0" + head).join(alike), b"\0"
        if packets:
            self.outbox.add_bytes(b"".join(packets))

    def fail(self, handle: Handle) -> None:
        """End a job without a result. gearmand then deletes a background job: never retried."""
        self.outbox.add(PacketType.WORK_FAIL, handle)

    def update(self, type_: PacketType, handle: Handle, *args: bytes) -> None:
        """Send any other WORK_* packet about a job that is held."""
        self.outbox.add(type_, handle, *args)

    def submit(self, token: object, function: bytes, unique: bytes, workload: bytes) -> None:
        """Submit a background job; its Confirmed or Refused brings the token back.

        ValueError, with nothing sent, where `function` or `unique` holds a NUL.
        """
        self.outbox.add(PacketType.SUBMIT_JOB_BG, function, unique, workload)
        self._submitted.append(token)

    def _handle(self, type_: PacketType, many: list[list[bytes]], events: list[object]) -> None:
        if type_ is PacketType.JOB_ASSIGN_UNIQ:
            self._assigned(many, events)
        elif type_ is PacketType.NO_JOB:
            for _ in many:
                self._answered("NO_JOB")
            self.wanted = 1
            self.empty = True
        elif type_ is PacketType.NOOP:
            self.asleep = False
            self.empty = False
        elif type_ is PacketType.ERROR:
            for code, text in many:
                said = in_words(code), in_words(text)
                if self._submitted and code != _JOB_NOT_FOUND:
                    events.append(Refused(self._submitted.popleft(), *said))
                else:
                    events.append(ServerError(*said))
        elif type_ is PacketType.JOB_CREATED:
            self._created([Handle(handle) for (handle,) in many], events)
        else:
            super()._handle(type_, many, events)

    def _assigned(self, many: list[list[bytes]], events: list[object]) -> None:
        """Take jobs, as far as they are what was asked for."""
        # They have the packet's order; this is half the price of Job(*args).
        jobs = [_new_tuple(Job, args) for args in many[: self.outstanding]]
        function = self._function
        strange = [number for number, job in enumerate(jobs) if job.function != function]
        if strange:
            del jobs[strange[0] :]
        for job in jobs:
            if len(job.handle) > MAX_NAME:
                raise long_name("handle", job.handle)
            if len(job.unique) > MAX_NAME:
                raise long_name("unique", job.unique)
        if jobs:
            self.outstanding -= len(jobs)
            self.wanted += len(jobs)
            self.empty = False
            events.append(Assigned(jobs))
        if strange:
            raise ProtocolError("JOB_ASSIGN_UNIQ for a queue that was never asked for")
        if len(jobs) < len(many):
            self._answered("JOB_ASSIGN_UNIQ")

    def _created(self, handles: list[Handle], events: list[object]) -> None:
        """Pair confirms with what was submitted, as far as there is any."""
        good = handles[: len(self._submitted)]
        if good:
            tokens = [self._submitted.popleft() for _ in good]
            events.append(Confirmed(tokens, good, 0))  # nobody asks which coalesced
        if len(good) < len(handles):
            raise ProtocolError("unexpected JOB_CREATED")

    def _handle_oversized(self, packet: Oversized, events: list[object]) -> None:
        self._answered(packet.error.name)
        self.empty = False
        events.append(packet)

    def _answered(self, name: str) -> None:
        """Book the answer to a grab."""
        if not self.outstanding:
            raise ProtocolError(f"{name} that no grab asked for")
        self.outstanding -= 1
