"""Packets on their way out, joined into pieces that are worth a system call."""

from collections import deque
from typing import Final

from gevproxy.gearman.packet import HEADER, REQUEST, PacketType, check_args, encode

LARGE: Final = 32 * 1024
"""From this many bytes a packet's last argument is not copied but sent from where it lies."""

BATCH: Final = 256 * 1024
"""The outbox joins small packets into pieces of about this size: one system call each."""


class Outbox:
    """Packets on their way out. `size` is what waits here, `total` what ever came, in bytes.

    Large workloads are kept by reference: a job that waits to be sent is in memory once.
    """

    __slots__ = ("_chunks", "_referenced", "_taken", "total")

    def __init__(self) -> None:
        self._chunks: deque[tuple[bytes, bool]] = deque()  # with whether it is a reference
        self._taken = 0
        self._referenced = 0
        self.total = 0

    @property
    def size(self) -> int:
        """Bytes that wait."""
        return self.total - self._taken

    @property
    def copied(self) -> int:
        """Bytes that wait and are nowhere else in memory."""
        return self.size - self._referenced

    def add(self, type_: PacketType, *args: bytes) -> None:
        """Append a request. ValueError as `encode`, with nothing appended."""
        if not args or len(args[-1]) < LARGE:
            self.add_bytes(encode(type_, *args))
            return
        check_args(type_, args)
        head = b"".join([part + b"\0" for part in args[:-1]])
        self.add_bytes(HEADER.pack(REQUEST, type_, len(head) + len(args[-1])) + head)
        self.add_reference(args[-1])

    def add_bytes(self, packets: bytes) -> None:
        """Append what is already encoded, any number of packets."""
        self._chunks.append((packets, False))
        self.total += len(packets)

    def add_reference(self, workload: bytes) -> None:
        """Append what its owner keeps, too."""
        self._chunks.append((workload, True))
        self.total += len(workload)
        self._referenced += len(workload)

    def take(self) -> bytes:
        """Remove and return the next piece to send: packets joined, or one large workload."""
        chunks = self._chunks
        if not chunks:
            return b""
        piece, referenced = chunks.popleft()
        if referenced:
            self._referenced -= len(piece)
        elif chunks:
            parts = [piece]
            length = len(piece)
            while chunks and not chunks[0][1] and length < BATCH:
                part, _ = chunks.popleft()
                parts.append(part)
                length += len(part)
            piece = b"".join(parts)
        self._taken += len(piece)
        return piece

    def clear(self) -> None:
        """Forget what waits."""
        self._chunks.clear()
        self._taken = self.total
        self._referenced = 0
