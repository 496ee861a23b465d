"""CPU time of the stages for a job of 500 bytes: `python -m tests.bench.bench_stages`.

Prints microseconds per job, the median of five runs, for each stage alone and for decrypt, one
rewrite and encrypt together, and those in rows. The former must stay under LIMIT, or the exit code
is 1.
"""

import statistics
import sys
import time
from collections.abc import Callable

from gevproxy.config.model import Expect, ForwardConfig, Payload, QueueAddress, SetField, Substitute
from gevproxy.gearman.job import Handle, Job, Server
from gevproxy.stages import CallbackJob, build
from gevproxy.stages.crypto import Decrypt, Encrypt
from gevproxy.stages.payload import decode, pack
from gevproxy.stages.rewrite import compile_rules

LIMIT = 40.0
"""Microseconds for decrypt, one rewrite and encrypt."""

RUNS = 5
JOBS = 20_000

ROW = 100
"""Jobs of a row: a busy connection brings some hundreds at once."""

HEADER = b"type=service\nresult_queue=check_results\nhost_name=host012\ncommand_line="
TEXT = HEADER + b"x" * (500 - len(HEADER) - 3) + b"\n\n\n"

RULE = Substitute(rb"^result_queue=.*$", b"result_queue=results_special")
FIELD = SetField(b"result_queue", b"results_special")


def same(data: bytes, job: CallbackJob) -> bytes:  # noqa: ARG001 - a callback's arguments
    """Return the text as it is: what is measured is the call."""
    return data


def forward(callback: str | None = None, *, crypto: bool = True) -> ForwardConfig:
    """Return a forward from one key to another with a rewrite, or one with a callback alone."""
    address = QueueAddress(Server("127.0.0.1"), "service")
    return ForwardConfig(
        source=address,
        target=address,
        decrypt=("one key",) if crypto else (),
        rewrite=(RULE,) if crypto else (),
        data_callback=callback,
        encrypt="another key" if crypto else None,
        payload=Payload.RAW,
        expect=Expect.MOD_GEARMAN if crypto else Expect.ANY,
    )


def microseconds(call: Callable[[], object], jobs: int = 1) -> float:
    """Return the CPU time of a call for each of its jobs: the median of RUNS means."""
    means = []
    for _ in range(RUNS):
        started = time.process_time()
        for _ in range(JOBS // jobs):
            call()
        means.append((time.process_time() - started) / JOBS * 1e6)
    return statistics.median(means)


def main() -> int:
    """Print a line for each measurement; return the exit code."""
    encrypt, decrypt = Encrypt(b"one key"), Decrypt([b"one key"], any_text=False)
    substitute, set_field = compile_rules([RULE, FIELD])
    pipeline = build(forward(), environ={})
    called = build(forward(f"{__spec__.name}:same", crypto=False), environ={})
    if pipeline is None or called is None:
        raise AssertionError("a forward with stages has a pipeline")
    encrypted, packed = encrypt(TEXT), pack(TEXT)
    job = Job(Handle(b"H:host:17"), b"service", b"0123456789ABCDEF0123456789ABCDEF", encrypted)
    raw = job._replace(workload=TEXT)
    row = [job] * ROW

    whole = microseconds(lambda: pipeline(job))
    rows = {
        "decrypt": microseconds(lambda: decrypt(encrypted)),
        "rewrite, pattern": microseconds(lambda: substitute(TEXT)),
        "rewrite, set": microseconds(lambda: set_field(TEXT)),
        "data_callback": microseconds(lambda: called(raw)),
        "encrypt": microseconds(lambda: encrypt(TEXT)),
        "decode (base64)": microseconds(lambda: decode(packed)),
        "encode (base64)": microseconds(lambda: pack(TEXT)),
        "decrypt, pattern, encrypt": whole,
        f"the same in rows of {ROW}": microseconds(lambda: pipeline.row(row), ROW),
    }
    for name, value in rows.items():
        sys.stdout.write(f"{name:27}{value:7.2f} us\n")
    sys.stdout.write(f"decrypt, pattern, encrypt must stay under {LIMIT:.0f} us\n")
    return int(whole > LIMIT)


if __name__ == "__main__":
    sys.exit(main())
