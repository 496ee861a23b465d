"""Replay: submits dead letters to their *source* queue, so that they pass every stage again.

Exactly what the source has confirmed is removed. What is killed between a confirm and the removal
is replayed once more by the next one: at least once, never not at all. The daemon may run
meanwhile; it writes to another segment. Plain blocking sockets, each wait with a deadline. Speaks
to no person: that is `dead_letters_command.py`.
"""

from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, NamedTuple

from gevproxy import config
from gevproxy.dead_letters import DeadLetters, Entry, Letter
from gevproxy.errors import GearmanError, LinkError
from gevproxy.gearman import Client, Confirmed, Refused, Server
from gevproxy.gearman.connection import connect, reason_of
from gevproxy.gearman.tls import Tls

WINDOW: Final = 1000
"""Letters on their way to one source: enough for 10,000 a second at a round trip of 100 ms."""

WINDOW_BYTES: Final = 4 * 1024 * 1024
"""Bytes of payload on their way to one source; a larger letter goes alone."""

DEADLINE: Final = 60.0
"""Seconds without any progress until a source counts as dead: a full window on a thin link."""

_RECEIVE: Final = 64 * 1024


@dataclass(slots=True)
class Result:
    """What a replay did, in letters. `replayed` were confirmed, `coalesced` counts some of them.

    `refusals` counts what stays by its reason, `failed` says why a source was given up.
    """

    replayed: int = 0
    coalesced: int = 0
    refusals: Counter[str] = field(default_factory=Counter)
    failed: dict[Server, str] = field(default_factory=dict)


class _Sent(NamedTuple):
    """What is remembered of a letter until it is answered: its place in the segment, its bytes."""

    offset: int
    size: int


_Answer = Confirmed[_Sent] | Refused[_Sent]


def replay(
    letters: DeadLetters,
    takes: Callable[[Entry], bool],
    tls: Mapping[Server, Tls],
    *,
    deadline: float = DEADLINE,
) -> Result:
    """Submit the letters that `takes` wants, oldest first; remove what was confirmed.

    Works on closed segments, after closing the current one; a second replay is kept out. Letters
    that are refused, and those of a source that fails, stay. A source that is not in `tls` is
    spoken to in plain text. `deadline` is the seconds without
    progress after which a source has failed. DeadLetterError where the folder fails: what was
    confirmed by then may still be there, and would be replayed again.
    """
    return _Replay(letters, tls, deadline).run(takes)


class _Replay:
    """One run through all closed segments, with one connection to each source that is met."""

    def __init__(self, letters: DeadLetters, tls: Mapping[Server, Tls], deadline: float) -> None:
        self._letters = letters
        self._tls = tls
        self._deadline = deadline
        self._result = Result()
        self._sources: dict[Server, _Source] = {}
        self._confirmed: set[int] = set()  # offsets in the segment at hand

    def run(self, takes: Callable[[Entry], bool]) -> Result:
        try:
            with self._letters.alone():
                self._letters.close_current()
                for segment in self._letters.closed():
                    self._replay(segment, takes)
        finally:
            for source in self._sources.values():
                source.close()
        return self._result

    def _replay(self, segment: Path, takes: Callable[[Entry], bool]) -> None:
        self._confirmed = set()
        try:
            for entry in filter(takes, self._letters.read(segment)):
                self._submit(entry)
            for server in tuple(self._sources):
                self._exchange(server, finish=True)
        finally:
            # After an interrupt, too, what was confirmed is not to be replayed again.
            self._letters.remove(segment, self._confirmed)

    def _submit(self, entry: Entry) -> None:
        letter = entry.letter
        if letter is None:
            self._result.refusals["the line is damaged"] += 1
            return
        try:
            address = config.parse_address(letter.source)
            source = self._source(address.server)
            if source is not None:
                source.submit(_Sent(entry.offset, len(letter.payload)), address.queue, letter)
                self._exchange(address.server, finish=False)
        except ValueError as error:  # a person has edited the file
            self._result.refusals[str(error)] += 1

    def _source(self, server: Server) -> "_Source | None":
        """Return the connection to a server, made where it is missing; None after a failure."""
        if server not in self._sources and server not in self._result.failed:
            try:
                self._sources[server] = _Source(server, self._tls.get(server), self._deadline)
            except GearmanError as error:
                self._result.failed[server] = str(error)
        return self._sources.get(server)

    def _exchange(self, server: Server, *, finish: bool) -> None:
        """Make room for another letter, or `finish` what is under way; book the answers."""
        try:
            for answer in self._sources[server].exchange(finish=finish):
                self._book(answer)
        except GearmanError as error:
            self._result.failed[server] = str(error)
            self._sources.pop(server).close()

    def _book(self, answer: _Answer) -> None:
        if isinstance(answer, Confirmed):
            self._confirmed.update(token.offset for token in answer.tokens)
            self._result.replayed += len(answer.tokens)
            self._result.coalesced += answer.coalesced
        else:
            self._result.refusals[f"{answer.code}: {answer.text}"] += 1


class _Source:
    """A connection to one source: letters go out in a window, answers come back in their order.

    Every method raises GearmanError where the connection or the source fails.
    """

    def __init__(self, server: Server, tls: Tls | None, deadline: float) -> None:
        self._client: Client[_Sent] = Client()
        self._bytes = 0  # of payload, without an answer
        self._sock = connect(server, tls)
        self._sock.settimeout(deadline)

    def submit(self, sent: _Sent, queue: str, letter: Letter) -> None:
        """Line a letter up. ValueError where it cannot be said in Gearman."""
        self._client.submit(sent, queue.encode(), letter.unique, letter.payload)
        self._bytes += sent.size

    def exchange(self, *, finish: bool) -> Iterator[_Answer]:
        """Yield answers until the window has room, or, to `finish`, until none is due."""
        while self._client.unconfirmed and (finish or self._is_full):
            try:
                self._send()
                data = self._sock.recv(_RECEIVE)
            except OSError as error:
                raise LinkError(reason_of(error)) from error
            if not data:
                raise LinkError("closed by peer")
            for event in self._client.receive(data):
                if isinstance(event, Confirmed):
                    self._bytes -= sum(token.size for token in event.tokens)
                    yield event
                elif isinstance(event, Refused):
                    self._bytes -= event.token.size
                    yield event
            if self._client.fault is not None:
                raise self._client.fault

    @property
    def _is_full(self) -> bool:
        return self._client.unconfirmed >= WINDOW or self._bytes >= WINDOW_BYTES

    def _send(self) -> None:
        """Send all that is lined up; the deadline counts from each piece that the kernel takes."""
        while piece := self._client.outbox.take():
            rest = memoryview(piece)
            while rest:
                rest = rest[self._sock.send(rest) :]

    def close(self) -> None:
        """Hang up."""
        self._sock.close()
