"""The client's end: confirms and refusals in the order of submission, work updates."""

import pytest

from gevproxy.gearman.client import Client, Confirmed, Refused, Update
from gevproxy.gearman.job import Handle, Priority
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
        Confirmed("a", Handle(b"H:a:1"), coalesced=False),
        Refused("b", "QUEUE_ERROR", "full"),
        Confirmed("c", Handle(b"H:a:2"), coalesced=False),
    ]
    assert client.unconfirmed == 1


def test_an_old_handle_is_a_coalesced_job() -> None:
    client: Client[int] = Client()
    for n in range(5):
        client.submit(n, b"q", b"u", b"")
    events = client.receive(b"".join(created(n) for n in (9, 10, 9, 10, 11)))
    coalesced = [e.coalesced for e in events if isinstance(e, Confirmed)]
    assert coalesced == [False, False, True, True, False]


def test_an_option_takes_its_place_in_the_order() -> None:
    client: Client[int] = Client()
    client.option(b"exceptions")
    client.submit(7, b"q", b"", b"")
    assert client.receive(response(PacketType.OPTION_RES, b"exceptions") + created(1)) == [
        Confirmed(7, Handle(b"H:a:1"), coalesced=False)
    ]


def test_a_refused_option_is_no_refused_job() -> None:
    client: Client[int] = Client()
    client.option(b"exceptions")
    client.submit(7, b"q", b"", b"")
    refusal = response(PacketType.ERROR, b"UNKNOWN_OPTION", b"")
    assert client.receive(refusal + created(1)) == [Confirmed(7, Handle(b"H:a:1"), coalesced=False)]


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


def test_a_unique_with_a_nul_is_refused_whole() -> None:
    client: Client[int] = Client()
    with pytest.raises(ValueError, match="NUL"):
        client.submit(1, b"q", b"u\0", b"w")
    assert (client.unconfirmed, client.outbox.size) == (0, 0)
