"""The wire: every packet type, in pieces of every size, and everything that breaks the protocol."""

import struct
from collections.abc import Callable, Iterable
from typing import NamedTuple

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gevproxy.errors import PacketTooLarge, ProtocolError
from gevproxy.gearman.buffer import Oversized, PacketBuffer, Packets
from gevproxy.gearman.outbox import Outbox
from gevproxy.gearman.packet import ARGUMENTS, HEADER_SIZE, RESPONSE, PacketType, encode


class Packet(NamedTuple):
    """One packet; the buffer gives rows of them."""

    type: PacketType
    args: tuple[bytes, ...]


Read = list[Packet | Oversized]
Feed = Callable[[PacketBuffer, bytes], Read]


def whole(buffer: PacketBuffer, data: bytes) -> Read:
    found: Read = []
    for row in buffer.feed(data):
        if isinstance(row, Oversized):
            found.append(row)
        else:
            assert row.many
            found += [Packet(row.type, tuple(args)) for args in row.many]
    return found


def byte_by_byte(buffer: PacketBuffer, data: bytes) -> Read:
    return [packet for i in range(len(data)) for packet in whole(buffer, data[i : i + 1])]


def ten_bytes(buffer: PacketBuffer, data: bytes) -> Read:
    return [packet for i in range(0, len(data), 10) for packet in whole(buffer, data[i : i + 10])]


in_pieces = pytest.mark.parametrize("feed", [whole, byte_by_byte, ten_bytes])


def response(type_: PacketType, *args: bytes) -> bytes:
    return encode(type_, *args, magic=RESPONSE)


def raw(code: int, body: bytes, *, magic: bytes = RESPONSE, size: int | None = None) -> bytes:
    return struct.pack(">4sII", magic, code, len(body) if size is None else size) + body


def fault_of(buffer: PacketBuffer) -> ProtocolError:
    assert buffer.fault is not None
    return buffer.fault


def example_of(type_: PacketType) -> Packet:
    """Return a packet whose last argument holds NULs and every other byte."""
    count = ARGUMENTS[type_]
    args = [f"arg{n}".encode() for n in range(count)]
    if args:
        args[-1] = bytes(range(256)) + b"\0\0"
    return Packet(type_, tuple(args))


def test_types_are_those_of_the_protocol() -> None:
    """1 to 42 without 5, which has never been assigned; each has its argument count."""
    assert {int(type_) for type_ in PacketType} == set(range(1, 43)) - {5}
    assert set(ARGUMENTS) == set(PacketType)


@in_pieces
def test_every_type_comes_back_as_it_was(feed: Feed) -> None:
    packets = [example_of(type_) for type_ in PacketType]
    buffer = PacketBuffer()
    assert feed(buffer, b"".join(response(p.type, *p.args) for p in packets)) == packets
    assert buffer.fault is None


@in_pieces
def test_an_encoding_on_the_wire(feed: Feed) -> None:
    """The bytes themselves, so that encode and feed cannot be wrong together."""
    data = b"\0RES\x00\x00\x00\x1f\x00\x00\x00\x0cH:a:1\0q\0u\0w\0"
    assert feed(PacketBuffer(), data) == [
        Packet(PacketType.JOB_ASSIGN_UNIQ, (b"H:a:1", b"q", b"u", b"w\0"))
    ]
    assert encode(PacketType.CAN_DO, b"queue") == b"\0REQ\x00\x00\x00\x01\x00\x00\x00\x05queue"


def test_packets_of_one_type_come_in_rows() -> None:
    noop, job = response(PacketType.NOOP), response(PacketType.JOB_CREATED, b"H:a:1")
    assert PacketBuffer().feed(job * 3 + noop + job) == [
        Packets(PacketType.JOB_CREATED, [[b"H:a:1"]] * 3),
        Packets(PacketType.NOOP, [[]]),
        Packets(PacketType.JOB_CREATED, [[b"H:a:1"]]),
    ]


def test_a_row_that_breaks_off_is_returned_up_to_there() -> None:
    buffer = PacketBuffer()
    good = response(PacketType.JOB_ASSIGN_UNIQ, b"h", b"q", b"u", b"w")
    found = whole(buffer, good * 2 + raw(31, b"h\0q\0u") + good)
    assert len(found) == 2
    assert "takes 4 arguments, not 3" in str(fault_of(buffer))


packets = st.builds(
    lambda type_, parts, last: Packet(
        type_, (*parts[: ARGUMENTS[type_] - 1], last) if ARGUMENTS[type_] else ()
    ),
    st.sampled_from(PacketType),
    st.lists(st.binary(max_size=20).map(lambda b: b.replace(b"\0", b"x")), min_size=7, max_size=7),
    st.binary(max_size=2000),
)


@given(st.lists(packets, max_size=8), st.lists(st.integers(1, 400), min_size=1, max_size=5))
def test_round_trip(sent: list[Packet], sizes: list[int]) -> None:
    """Any packets, cut into any pieces."""
    data = b"".join(response(p.type, *p.args) for p in sent)
    buffer = PacketBuffer()
    got: Read = []
    position, turn = 0, 0
    while position < len(data):
        size = sizes[turn % len(sizes)]
        got += whole(buffer, data[position : position + size])
        position, turn = position + size, turn + 1
    assert got == sent
    assert buffer.fault is None


@given(st.binary(max_size=200), st.integers(1, 50))
def test_noise_is_a_fault_or_waits(noise: bytes, size: int) -> None:
    """Whatever comes, feed raises nothing and keeps no more than it was given."""
    buffer = PacketBuffer(max_packet=1000)
    for i in range(0, len(noise), size):
        buffer.feed(noise[i : i + size])
    assert len(buffer._pending) <= len(noise)


BROKEN: Iterable[tuple[str, bytes, str]] = [
    ("request magic", raw(6, b"", magic=b"\0REQ"), r"wrong magic b'\\x00REQ'"),
    ("http", b"HTTP/1.1 400 Bad Request\r\n", "wrong magic b'HTTP': no Gearman server"),
    ("type 0", raw(0, b""), "unknown packet type 0"),
    ("type 5", raw(5, b""), "unknown packet type 5"),
    ("type 43", raw(43, b""), "unknown packet type 43"),
    ("too few", raw(31, b"H:a:1\0q\0u"), "JOB_ASSIGN_UNIQ takes 4 arguments, not 3"),
    ("too many", raw(10, b"x"), "NO_JOB takes no arguments but has 1 bytes"),
    ("too many in a row", raw(6, b"x"), "NOOP takes no arguments but has 1 bytes"),
]


@in_pieces
@pytest.mark.parametrize(("data", "text"), [b[1:] for b in BROKEN], ids=[b[0] for b in BROKEN])
def test_a_broken_packet_is_a_fault(feed: Feed, data: bytes, text: str) -> None:
    """What came before it is returned, what comes behind it is not."""
    buffer = PacketBuffer()
    good = response(PacketType.NOOP)
    assert feed(buffer, good + data + good) == [Packet(PacketType.NOOP, ())]
    with pytest.raises(ProtocolError, match=text):
        raise fault_of(buffer)
    assert buffer.feed(good) == []


@in_pieces
def test_an_oversized_job_is_named_and_passed_over(feed: Feed) -> None:
    """Without its body ever being kept; what comes behind it is read."""
    buffer = PacketBuffer(max_packet=1000)
    body = b"H:host:17\0q\0u\0" + bytes(2000)
    good = response(PacketType.NOOP)
    found = feed(buffer, good + raw(PacketType.JOB_ASSIGN_UNIQ, body) + good)
    noop = Packet(PacketType.NOOP, ())
    assert [found[0], found[2]] == [noop, noop]
    oversized = found[1]
    assert isinstance(oversized, Oversized)
    error = oversized.error
    assert (oversized.handle, error.size, error.limit) == (b"H:host:17", len(body), 1000)
    assert str(error) == "JOB_ASSIGN_UNIQ of job H:host:17 has 2014 bytes, over max_packet (1000)"
    assert buffer.fault is None
    assert len(buffer._pending) == 0


@in_pieces
def test_an_oversized_reply_is_a_fault_that_names_its_job(feed: Feed) -> None:
    buffer = PacketBuffer(max_packet=1000)
    assert feed(buffer, raw(PacketType.WORK_COMPLETE, b"H:a:1\0" + bytes(2000))) == []
    fault = fault_of(buffer)
    assert isinstance(fault, PacketTooLarge)
    assert fault.handle == b"H:a:1"


@in_pieces
def test_four_gigabytes_are_refused_from_the_header(feed: Feed) -> None:
    buffer = PacketBuffer()
    assert feed(buffer, raw(PacketType.JOB_CREATED, b"", size=0xFFFFFFFF)) == []
    assert "JOB_CREATED has 4294967295 bytes, over max_packet" in str(fault_of(buffer))


def test_a_packet_of_exactly_max_packet_passes() -> None:
    body = b"H:a:1\0" + bytes(994)
    assert len(PacketBuffer(max_packet=1000).feed(raw(PacketType.WORK_COMPLETE, body))) == 1
    assert PacketBuffer(max_packet=999).feed(raw(PacketType.WORK_COMPLETE, body)) == []


def test_encode_checks_before_it_produces() -> None:
    with pytest.raises(ValueError, match="CAN_DO takes 1 arguments, not 2"):
        encode(PacketType.CAN_DO, b"a", b"b")
    with pytest.raises(ValueError, match="only the last argument may hold a NUL"):
        encode(PacketType.SUBMIT_JOB_BG, b"q\0", b"u", b"w")


@pytest.mark.parametrize("size", [0, 10, 32 * 1024 - 1, 32 * 1024, 500_000])
def test_the_outbox_gives_what_it_took(size: int) -> None:
    """Small packets joined, large workloads alone, the order kept, the sums right."""
    outbox = Outbox()
    expected = b""
    for n in range(20):
        args = (b"q", str(n).encode(), bytes(size))
        outbox.add(PacketType.SUBMIT_JOB_BG, *args)
        expected += encode(PacketType.SUBMIT_JOB_BG, *args)
    assert outbox.size == outbox.total == len(expected)
    pieces = []
    while piece := outbox.take():
        pieces.append(piece)
    assert b"".join(pieces) == expected
    assert (outbox.size, outbox.total) == (0, len(expected))


def test_the_outbox_does_not_copy_a_large_workload() -> None:
    workload = bytes(1_000_000)
    outbox = Outbox()
    outbox.add(PacketType.SUBMIT_JOB_BG, b"q", b"u", workload)
    assert outbox.copied == HEADER_SIZE + len(b"q\0u\0")
    assert len(outbox.take()) == HEADER_SIZE + len(b"q\0u\0")
    assert outbox.take() is workload


def test_the_outbox_refuses_whole() -> None:
    outbox = Outbox()
    with pytest.raises(ValueError, match="NUL"):
        outbox.add(PacketType.SUBMIT_JOB_BG, b"q", b"u\0", bytes(100_000))
    assert outbox.take() == b""
    outbox.add(PacketType.PRE_SLEEP)
    outbox.clear()
    assert (outbox.size, outbox.take()) == (0, b"")
