"""Fuzzing guided by coverage: `python -m tests.hostile.fuzz TARGET [options of libFuzzer]`.

Runs until it is stopped, or as an option says (-max_total_time=60). It ends with an error where a
target raises what it may not, and leaves the input that did it in the current folder.
"""

import contextlib
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import atheris

with atheris.instrument_imports(include=["gevproxy"]):
    from gevproxy.config import load
    from gevproxy.errors import ConfigError, StageError
    from gevproxy.gearman.buffer import Oversized, PacketBuffer
    from gevproxy.gearman.client import Client
    from gevproxy.gearman.worker import Worker
    from gevproxy.stages.crypto import Decrypt

MAX_PACKET = 64

decrypt = Decrypt([b"one key", b"another"], any_text=False)
file = Path(tempfile.mkdtemp(prefix="fuzz-")) / "x.json"


def read(pieces: list[bytes]) -> tuple[list[object], str]:
    """Return what a buffer makes of the pieces of a stream; of a job that is too large its name."""
    buffer = PacketBuffer(max_packet=MAX_PACKET)
    named: list[object] = []
    for row in (row for piece in pieces for row in buffer.feed(piece)):
        if isinstance(row, Oversized):
            named.append(row.handle)
        else:
            named += [(row.type, args) for args in row.many]
    return named, str(buffer.fault)


def fuzz_packet(data: bytes) -> None:
    """Cut a stream somewhere: it means what it means whole."""
    cut = data[0] if data else 0
    stream = data[1:]
    pieces = [stream[i : i + cut] for i in range(0, len(stream), cut)] if cut else []
    if pieces:
        assert read(pieces) == read([stream])


def fuzz_worker(data: bytes) -> None:
    """Talk to a worker: a fault is no exception, and ends everything."""
    worker = Worker(b"q", MAX_PACKET)
    for byte in data[:4]:
        worker.grab(byte % 4)
    worker.receive(data[4:])
    assert worker.outstanding >= 0
    assert worker.fault is None or not worker.receive(data)


def fuzz_client(data: bytes) -> None:
    """Talk to a client: the same."""
    client: Client[int] = Client(background=False, max_packet=MAX_PACKET)
    client.option(b"exceptions")
    client.submit(1, b"q", b"u", b"w")
    client.receive(data)
    assert client.unconfirmed <= 2
    assert client.fault is None or not client.receive(data)


def fuzz_config(data: bytes) -> None:
    """Load a file: it is a configuration or a ConfigError."""
    file.write_bytes(data)
    with contextlib.suppress(ConfigError):
        load([file], environ={})


def fuzz_decrypt(data: bytes) -> None:
    """Decrypt a payload: it is a text or a StageError."""
    with contextlib.suppress(StageError):
        assert isinstance(decrypt(data), bytes)


TARGETS: dict[str, Callable[[bytes], None]] = {
    "packet": fuzz_packet,
    "worker": fuzz_worker,
    "client": fuzz_client,
    "config": fuzz_config,
    "decrypt": fuzz_decrypt,
}


def main() -> None:
    """Fuzz the target that is named."""
    atheris.Setup([sys.argv[0], *sys.argv[2:]], TARGETS[sys.argv[1]])
    atheris.Fuzz()


if __name__ == "__main__":
    main()
