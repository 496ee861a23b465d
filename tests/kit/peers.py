"""The users of a job server: producers that submit, consumers that work, clients that wait.

All pipeline, so that a test moves 100,000 jobs in seconds, and all keep digests of
workloads rather than the workloads, so that it does so in little memory.
"""

import hashlib
import os
import select
import socket
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import NamedTuple, Self

from tests.kit.eventually import eventually
from tests.kit.packets import Connection, Decoder, Kind, Packet, encode
from tests.kit.ports import Connect, loopback

CHUNK = 1 << 18  # bytes read at once, and bytes of jobs prepared ahead of the socket
LINGER = 5.0  # seconds that a consumer waits for the server when it leaves
PAUSE = 0.05  # seconds between two attempts to connect


class Job(NamedTuple):
    """A job as it is submitted."""

    function: bytes
    unique: bytes
    workload: bytes


class Seen(NamedTuple):
    """What is remembered of a job: enough to compare sets."""

    unique: bytes
    digest: bytes


class Assigned(NamedTuple):
    """A job as a worker gets it."""

    handle: bytes
    function: bytes
    unique: bytes
    workload: bytes


Answer = Callable[[Assigned], Sequence[Packet]]


def digest(workload: bytes) -> bytes:
    """Return what stands for a workload in a comparison."""
    return hashlib.blake2b(workload, digest_size=16).digest()


def seen(job: Job | Assigned) -> Seen:
    """Return what a consumer should remember of a job."""
    return Seen(job.unique, digest(job.workload))


def complete(job: Assigned, result: bytes = b"") -> Sequence[Packet]:
    """Answer a job with a result."""
    return [Packet(Kind.WORK_COMPLETE, (job.handle, result))]


class Producer:
    """Submits jobs in the background, many at a time, and keeps the answers in their order."""

    def __init__(
        self,
        port: int,
        jobs: Iterable[Job],
        in_flight: int = 1000,
        kind: Kind = Kind.SUBMIT_JOB_BG,
    ) -> None:
        self.jobs = iter(jobs)
        self.in_flight = in_flight
        self.kind = kind
        self.submitted = 0
        self.answers: list[Packet] = []
        self.failure: BaseException | None = None
        self.socket = socket.create_connection(("127.0.0.1", port), 10)
        self.thread = threading.Thread(target=self._run, daemon=True)
        self.thread.start()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def handles(self) -> list[bytes]:
        """Return the handles of the jobs that were created."""
        return [packet.args[0] for packet in self.answers if packet.kind is Kind.JOB_CREATED]

    @property
    def errors(self) -> list[Packet]:
        """Return the refusals."""
        return [packet for packet in self.answers if packet.kind is Kind.ERROR]

    def join(self, deadline: float = 60.0) -> list[bytes]:
        """Wait until every job is answered and return the handles."""
        self.thread.join(deadline)
        assert not self.thread.is_alive(), f"{len(self.answers)} answers in {deadline} s"
        if self.failure:
            raise self.failure
        return self.handles

    def close(self) -> None:
        """Hang up, whether all is answered or not."""
        if self.thread.is_alive():
            self.socket.shutdown(socket.SHUT_RDWR)
        self.thread.join()

    def _run(self) -> None:
        try:
            with self.socket:
                self.socket.settimeout(0)
                self._submit()
        except (OSError, AssertionError) as failure:
            self.failure = failure

    def _submit(self) -> None:
        decoder, out, more = Decoder(), bytearray(), True
        while more or out or len(self.answers) < self.submitted:
            while more and self.submitted - len(self.answers) < self.in_flight and len(out) < CHUNK:
                job = next(self.jobs, None)
                if job is None:
                    more = False
                else:
                    out += encode(self.kind, *job)
                    self.submitted += 1
            if not out and len(self.answers) == self.submitted:
                continue
            readable, writable, _ = select.select(
                [self.socket], [self.socket] if out else [], [], None
            )
            if writable:
                del out[: self.socket.send(out)]
            if readable:
                data = self.socket.recv(CHUNK)
                if not data:
                    raise ConnectionError(f"closed with {self.submitted - len(self.answers)} open")
                self.answers += decoder.feed(data)


def submit(port: int, jobs: Iterable[Job], deadline: float = 60.0) -> list[bytes]:
    """Submit background jobs, wait for all answers and return the handles."""
    with Producer(port, jobs) as producer:
        return producer.join(deadline)


class Consumer:
    """A worker in the background that takes what its queues hold and remembers it."""

    def __init__(
        self,
        port: int,
        *functions: bytes,
        window: int = 100,
        answer: Answer = complete,
        client_id: bytes = b"",
        keep_workloads: bool = False,
        reconnect: bool = False,
        connect: Connect = loopback,
    ) -> None:
        self.port = port
        self.connect = connect
        self.functions = functions
        self.window = window
        self.answer = answer
        self.client_id = client_id
        self.keep_workloads = keep_workloads
        self.reconnect = reconnect
        self.seen: list[Seen] = []
        self.jobs: list[Assigned] = []  # filled only with keep_workloads
        self.failure: BaseException | None = None
        self.stopping = threading.Event()
        self.wake_read, self.wake_write = os.pipe()
        self.socket = connect(port, 10)
        self.thread = threading.Thread(target=self._run, daemon=True)
        self.thread.start()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    @property
    def uniques(self) -> list[bytes]:
        """Return the uniques of the jobs that came, in order."""
        return [each.unique for each in self.seen]

    def wait_for(self, count: int, deadline: float = 60.0) -> list[Seen]:
        """Wait until so many jobs have come and return all that have."""

        def enough() -> bool:
            if self.failure:
                raise self.failure
            return len(self.seen) >= count

        try:
            eventually(enough, deadline)
        except AssertionError:
            raise AssertionError(f"{len(self.seen)} of {count} jobs in {deadline} s") from None
        return list(self.seen)

    def stop(self) -> None:
        """Finish what was taken, leave, and wait until the server has counted it."""
        if self.stopping.is_set():
            return
        self.stopping.set()
        os.write(self.wake_write, b"x")
        self.thread.join()
        os.close(self.wake_read)
        os.close(self.wake_write)

    def _run(self) -> None:
        connected = True
        while connected and not self.failure:
            try:
                with self.socket:
                    self._work()
            except OSError as failure:
                if not (self.reconnect or self.stopping.is_set()):
                    self.failure = failure
            except AssertionError as failure:
                self.failure = failure
            connected = self._connect_again()

    def _connect_again(self) -> bool:
        """Try until it works or it is time to stop."""
        while self.reconnect and not self.stopping.is_set():
            try:
                self.socket = self.connect(self.port, 10)
            except OSError:
                self.stopping.wait(PAUSE)
            else:
                return True
        return False

    def _work(self) -> None:
        """Grab and answer until told to stop, then half-close and read to the end."""
        self.socket.settimeout(None)
        if self.client_id:
            self.socket.sendall(encode(Kind.SET_CLIENT_ID, self.client_id))
        grabs = encode(Kind.GRAB_JOB_UNIQ) * self.window
        abilities = b"".join(encode(Kind.CAN_DO, function) for function in self.functions)
        self.socket.sendall(abilities + grabs)
        outstanding = self.window
        decoder = Decoder()
        while data := self._read():
            out = bytearray()
            for packet in decoder.feed(data):
                if packet.kind is Kind.JOB_ASSIGN_UNIQ:
                    out += self._handle(Assigned(*packet.args)) + encode(Kind.GRAB_JOB_UNIQ)
                elif packet.kind is Kind.NO_JOB:
                    outstanding -= 1
                    if not outstanding:
                        out += encode(Kind.PRE_SLEEP)
                elif packet.kind is Kind.NOOP and not outstanding:
                    out += grabs
                    outstanding = self.window
            self.socket.sendall(out)
        self.socket.settimeout(LINGER)
        self.socket.shutdown(socket.SHUT_WR)
        while self.socket.recv(CHUNK):
            pass

    def _read(self) -> bytes:
        """Return what the server sent next, or nothing when it is time to stop."""
        readers: list[socket.socket | int] = [self.socket, self.wake_read]
        readable, _, _ = select.select(readers, [], [])
        if self.wake_read in readable:
            return b""
        data = self.socket.recv(CHUNK)
        if not data:
            raise ConnectionError("the job server closed the connection")
        return data

    def _handle(self, job: Assigned) -> bytes:
        self.seen.append(seen(job))
        if self.keep_workloads:
            self.jobs.append(job)
        return b"".join(encode(packet.kind, *packet.args) for packet in self.answer(job))


def drain(port: int, function: bytes, count: int, deadline: float = 60.0) -> list[Seen]:
    """Take so many jobs off a queue and return what came."""
    with Consumer(port, function) as consumer:
        consumer.wait_for(count, deadline)
    return consumer.seen


class SyncClient:
    """Submits foreground jobs, any number at once, and collects what comes back for each."""

    ENDS = frozenset({Kind.WORK_COMPLETE, Kind.WORK_FAIL, Kind.WORK_EXCEPTION})

    def __init__(self, port: int, exceptions: bool = False, timeout: float = 10.0) -> None:
        self.connection = Connection(port, timeout)
        self.created: deque[bytes] = deque()
        self.updates: dict[bytes, list[Packet]] = {}
        if exceptions:
            self.connection.send(Kind.OPTION_REQ, b"exceptions")
            assert self.connection.receive().kind is Kind.OPTION_RES

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Hang up, whether all is answered or not."""
        self.connection.close()

    def submit(
        self,
        function: bytes,
        workload: bytes,
        unique: bytes = b"",
        kind: Kind = Kind.SUBMIT_JOB,
    ) -> bytes:
        """Submit one job and return its handle."""
        self.connection.send(kind, function, unique, workload)
        while not self.created:
            self._take(self.connection.receive())
        return self.created.popleft()

    def outcome(self, handle: bytes, deadline: float = 30.0) -> list[Packet]:
        """Return every WORK_* packet of a job, the last being the one that ends it."""
        end = time.monotonic() + deadline
        updates = self.updates.setdefault(handle, [])
        while not updates or updates[-1].kind not in self.ENDS:
            self._take(self.connection.receive(max(0.0, end - time.monotonic())))
        return updates

    def call(
        self, function: bytes, workload: bytes, unique: bytes = b"", deadline: float = 30.0
    ) -> list[Packet]:
        """Submit one job and return its outcome."""
        return self.outcome(self.submit(function, workload, unique), deadline)

    def _take(self, packet: Packet) -> None:
        assert packet.kind is not Kind.ERROR, packet
        if packet.kind is Kind.JOB_CREATED:
            self.created.append(packet.args[0])
        else:
            # gearmand ends the handle of a WORK_FAIL with a NUL of its own now and then.
            handle = packet.args[0].rstrip(b"\0")
            self.updates.setdefault(handle, []).append(packet)


def numbered(function: bytes, count: int, workload: bytes = b"") -> Iterator[Job]:
    """Yield jobs that differ in their unique and in the number that begins their workload."""
    for number in range(count):
        yield Job(function, b"u%d" % number, b"%d " % number + workload)
