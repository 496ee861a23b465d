"""Worker and client against whatever a server may send: no other error, no job out of nothing."""

from hypothesis import given, settings
from hypothesis import strategies as st

from gevproxy.gearman.buffer import Oversized
from gevproxy.gearman.client import Client, Confirmed, Refused
from gevproxy.gearman.job import Job
from gevproxy.gearman.packet import ARGUMENTS, RESPONSE, PacketType, encode
from gevproxy.gearman.peer import PING_HANDLE
from gevproxy.gearman.worker import Worker

MAX_PACKET = 200

arguments = st.sampled_from([b"", b"q", b"H:a:1", b"H:a:2", PING_HANDLE, b"\xff", b"x" * 300])


@st.composite
def packets(draw: st.DrawFn) -> bytes:
    """Draw a packet as a server may encode it: any type, and arguments that may fit."""
    type_ = draw(st.sampled_from(PacketType))
    count = ARGUMENTS[type_]
    return encode(type_, *[draw(arguments) for _ in range(count)], magic=RESPONSE)


likely = st.sampled_from(
    [
        encode(PacketType.JOB_ASSIGN_UNIQ, b"H:a:1", b"q", b"u", b"w", magic=RESPONSE),
        encode(PacketType.NO_JOB, magic=RESPONSE),
        encode(PacketType.NOOP, magic=RESPONSE),
        encode(PacketType.JOB_CREATED, b"H:a:1", magic=RESPONSE),
        encode(PacketType.ERROR, b"QUEUE_ERROR", b"full", magic=RESPONSE),
    ]
)
streams = st.lists(likely | packets() | st.binary(max_size=30), max_size=12).map(b"".join)
pieces = st.lists(st.tuples(streams, st.integers(0, 5)), max_size=6)


@settings(deadline=None)  # other work may slow the machine down
@given(pieces)
def test_a_worker_gets_no_more_jobs_than_it_asked_for(said: list[tuple[bytes, int]]) -> None:
    worker = Worker(b"q", MAX_PACKET)
    asked = given_ = 0
    for data, grabs in said:
        if grabs:
            worker.grab(grabs)
        elif not worker.outstanding:
            worker.sleep()
        asked += grabs
        broken = worker.fault is not None
        events = worker.receive(data)
        assert not (broken and events)
        given_ += sum(isinstance(event, Job | Oversized) for event in events)
        assert all(event.function == b"q" for event in events if isinstance(event, Job))
        assert 0 <= worker.outstanding <= asked - given_
        assert worker.wanted >= 1
        assert worker.outbox.size < 2000


@settings(deadline=None)  # other work may slow the machine down
@given(st.booleans(), pieces)
def test_a_client_pairs_each_submission_once_and_in_order(
    background: bool, said: list[tuple[bytes, int]]
) -> None:
    client: Client[int] = Client(background=background, max_packet=MAX_PACKET)
    submitted = 0
    answered: list[int] = []
    for data, count in said:
        for _ in range(count):
            client.submit(submitted, b"q", b"u", b"w")
            submitted += 1
        broken = client.fault is not None
        events = client.receive(data)
        assert not (broken and events)
        for each in events:
            if isinstance(each, Confirmed):
                answered += each.tokens
            elif isinstance(each, Refused):
                answered.append(each.token)
        assert answered == list(range(len(answered)))
        assert len(answered) <= submitted
        if client.fault is None:
            assert client.unconfirmed == submitted - len(answered)
