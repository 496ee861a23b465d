"""The few steps that most facts are made of."""

from tests.kit.packets import Connection, Kind, Packet

JOB_NOT_FOUND = Packet(Kind.ERROR, (b"JOB_NOT_FOUND", b"Job given in work result not found"))
NO_JOB = Packet(Kind.NO_JOB)
NOOP = Packet(Kind.NOOP)


def open_worker(port: int, function: bytes) -> Connection:
    """Connect a worker for one queue."""
    worker = Connection(port)
    worker.send(Kind.CAN_DO, function)
    return worker


def create(
    client: Connection,
    function: bytes,
    unique: bytes = b"",
    workload: bytes = b"",
    kind: Kind = Kind.SUBMIT_JOB_BG,
) -> bytes:
    """Submit a job and return its handle."""
    client.send(kind, function, unique, workload)
    answer = client.receive()
    assert answer.kind is Kind.JOB_CREATED, answer
    return answer.args[0]


def create_many(client: Connection, function: bytes, count: int) -> list[bytes]:
    """Submit jobs that differ in their workload and return their handles."""
    return [create(client, function, workload=b"%d" % number) for number in range(count)]


def grab(worker: Connection) -> Packet:
    """Grab once and return the answer."""
    worker.send(Kind.GRAB_JOB_UNIQ)
    return worker.receive()


def grab_many(worker: Connection, count: int) -> list[Packet]:
    """Send grabs back to back and return their answers."""
    worker.send_many(Kind.GRAB_JOB_UNIQ, [()] * count)
    return worker.receive_many(count)


def take(worker: Connection) -> bytes:
    """Grab a job that has to be there and return its handle."""
    answer = grab(worker)
    assert answer.kind is Kind.JOB_ASSIGN_UNIQ, answer
    return answer.args[0]


def settle(connection: Connection) -> None:
    """Wait until the server has handled all that was sent; nothing else may be on its way."""
    connection.send(Kind.ECHO_REQ, b"settled")
    assert connection.receive() == Packet(Kind.ECHO_RES, (b"settled",))


def fall_asleep(worker: Connection) -> None:
    """Send a worker with an empty queue to sleep."""
    assert grab(worker) == NO_JOB
    worker.send(Kind.PRE_SLEEP)
    settle(worker)
