"""The client's end: confirms and refusals in the order of submission, work updates."""

import pytest

from gevproxy.gearman.client import Client, Confirmed, Refused, Update
from gevproxy.gearman.job import Handle, Priority
from gevproxy.gearman.outbox import BATCH, LARGE
from gevproxy.gearman.packet import RESPONSE, PacketType, encode


def response(type_: PacketType, *args: bytes) -> bytes:
    return encode(type_, *args, magic=RESPONSE)


def created(n: int) -> bytes:
    return response(PacketType.JOB_CREATED, b"H:a:%d" % n)


@pytest.mark.parametrize(
    ("background", "priority", "type_"),
    [
        (True, Priority.NORMAL, PacketType.SUBMIT_JOB_BG),
        (True, Priority.HIGH, PacketType.SUBMIT_JOB_HIGH_BG),
        (True, Priority.LOW, PacketType.SUBMIT_JOB_LOW_BG),
        (False, Priority.NORMAL, PacketType.SUBMIT_JOB),
        (False, Priority.HIGH, PacketType.SUBMIT_JOB_HIGH),
        (False, Priority.LOW, PacketType.SUBMIT_JOB_LOW),
    ],
)
def test_submit(background: bool, priority: Priority, type_: PacketType) -> None:
    client: Client[int] = Client(background=background, priority=priority)
    client.submit(1, b"q", b"u", b"w\0")
    assert client.outbox.take() == encode(type_, b"q", b"u", b"w\0")
    assert client.unconfirmed == 1


def test_confirms_and_refusals_keep_one_order() -> None:
    client: Client[str] = Client()
    for token in "abcd":
        client.submit(token, b"q", b"", b"")
    refusal = response(PacketType.ERROR, b"QUEUE_ERROR", b"full")
    assert client.receive(created(1) + refusal + created(2)) == [
        Confirmed(["a"], [Handle(b"H:a:1")], coalesced=0),
        Refused("b", "QUEUE_ERROR", "full"),
        Confirmed(["c"], [Handle(b"H:a:2")], coalesced=0),
    ]
    assert client.unconfirmed == 1


def test_an_old_handle_is_a_coalesced_job() -> None:
    client: Client[int] = Client()
    for n in range(5):
        client.submit(n, b"q", b"u", b"")
    handles = [Handle(b"H:a:%d" % n) for n in (9, 10, 9, 10, 11)]
    data = b"".join(response(PacketType.JOB_CREATED, handle) for handle in handles)
    assert client.receive(data) == [Confirmed([0, 1, 2, 3, 4], handles, coalesced=2)]
    client.submit(5, b"q", b"u", b"")
    assert client.receive(created(11)) == [Confirmed([5], [Handle(b"H:a:11")], coalesced=1)]


def test_an_option_takes_its_place_in_the_order() -> None:
    client: Client[int] = Client()
    client.option(b"exceptions")
    client.submit(7, b"q", b"", b"")
    assert client.receive(response(PacketType.OPTION_RES, b"exceptions") + created(1)) == [
        Confirmed([7], [Handle(b"H:a:1")], coalesced=0)
    ]


def test_a_refused_option_is_no_refused_job() -> None:
    client: Client[int] = Client()
    client.option(b"exceptions")
    client.submit(7, b"q", b"", b"")
    refusal = response(PacketType.ERROR, b"UNKNOWN_OPTION", b"")
    assert client.receive(refusal + created(1)) == [Confirmed([7], [Handle(b"H:a:1")], coalesced=0)]


def test_updates() -> None:
    """With the NUL that gearmand puts after the handle of a WORK_FAIL."""
    client: Client[int] = Client(background=False)
    handle = Handle(b"H:a:1")
    data = b"".join(
        [
            response(PacketType.WORK_DATA, handle, b"d\0"),
            response(PacketType.WORK_STATUS, handle, b"1", b"2"),
            response(PacketType.WORK_FAIL, handle + b"\0"),
        ]
    )
    assert client.receive(data) == [
        Update(PacketType.WORK_DATA, handle, (b"d\0",)),
        Update(PacketType.WORK_STATUS, handle, (b"1", b"2")),
        Update(PacketType.WORK_FAIL, handle, ()),
    ]


@pytest.mark.parametrize(
    ("data", "text"),
    [
        (created(1) * 2, "JOB_CREATED that answers no submission"),
        (response(PacketType.ERROR, b"X", b"") * 2, "ERROR that answers no submission"),
        (response(PacketType.OPTION_RES, b"exceptions"), "OPTION_RES in the place of JOB_CREATED"),
        (response(PacketType.NO_JOB), "unexpected NO_JOB"),
    ],
)
def test_what_no_server_may_send(data: bytes, text: str) -> None:
    client: Client[int] = Client()
    client.submit(1, b"q", b"", b"")
    client.receive(data)
    assert text in str(client.fault)


def test_a_confirm_in_the_place_of_an_option() -> None:
    client: Client[int] = Client()
    client.option(b"exceptions")
    client.receive(created(1))
    assert "JOB_CREATED in the place of OPTION_RES" in str(client.fault)


def test_what_came_before_garbage_is_confirmed() -> None:
    client: Client[int] = Client()
    client.submit_all([1, 2], b"q", [b"", b""], [b"", b""])
    assert client.receive(created(1) + created(2) + created(3)) == [
        Confirmed([1, 2], [Handle(b"H:a:1"), Handle(b"H:a:2")], coalesced=0)
    ]
    assert "answers no submission" in str(client.fault)


def test_an_option_between_submissions() -> None:
    client: Client[int] = Client()
    client.submit_all([1, 2], b"q", [b"", b""], [b"", b""])
    client.option(b"exceptions")
    client.submit(3, b"q", b"", b"")
    assert client.unconfirmed == 4
    found = client.receive(created(1))
    found += client.receive(created(2) + response(PacketType.OPTION_RES, b"x") + created(3))
    assert [event.tokens for event in found if isinstance(event, Confirmed)] == [[1], [2], [3]]
    assert (client.unconfirmed, client.fault) == (0, None)


@pytest.mark.parametrize("size", [0, 100, LARGE - 1, LARGE, BATCH + 1])
def test_many_submissions_are_those_of_each(size: int) -> None:
    """Whatever the outbox joins or sends by reference: the bytes are those of `encode`."""
    client: Client[int] = Client()
    workloads = [bytes(size), b"small", bytes(size)] * 10
    uniques = [b"u%d" % n for n in range(30)]
    client.submit_all(range(30), b"q", uniques, workloads)
    expected = [
        encode(PacketType.SUBMIT_JOB_BG, b"q", unique, workload)
        for unique, workload in zip(uniques, workloads, strict=True)
    ]
    assert client.outbox.size == sum(map(len, expected))
    pieces = []
    while piece := client.outbox.take():
        pieces.append(piece)
    assert b"".join(pieces) == b"".join(expected)
    assert client.outbox.size == client.outbox.copied == 0


def test_a_large_workload_waits_by_reference() -> None:
    client: Client[int] = Client()
    workload = bytes(LARGE)
    client.submit(1, b"q", b"u", workload)
    assert client.outbox.copied == client.outbox.size - LARGE
    client.outbox.take()
    assert client.outbox.take() is workload


@pytest.mark.parametrize(("function", "unique"), [(b"q", b"u\0"), (b"q\0", b"u")])
def test_a_name_with_a_nul_is_refused_whole(function: bytes, unique: bytes) -> None:
    client: Client[int] = Client()
    with pytest.raises(ValueError, match="NUL"):
        client.submit_all([1, 2], function, [b"good", unique], [b"w", b"w"])
    assert (client.unconfirmed, client.outbox.size) == (0, 0)
