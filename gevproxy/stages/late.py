r"""A Mod-Gearman check, read: how old it is, who waits for it, and the answer to a late one.

    type=service\nresult_queue=check_results\nhost_name=h\nservice_description=s\n
    core_time=1795484776.726245\ntimeout=60\ncommand_line=...\n\n\n

Looks at a job's payload beside the stages and changes nothing: a forward without stages passes its
bytes untouched, late checks or not. Pure: the time is an argument, in seconds since the epoch.
"""

from collections.abc import Callable, Mapping
from dataclasses import replace
from hashlib import blake2b
from math import isfinite
from typing import Final, NamedTuple

from gevproxy.config.keys import resolve_key
from gevproxy.config.model import ForwardConfig, Payload
from gevproxy.config.source import child_pointer
from gevproxy.errors import ConfigError, StageError
from gevproxy.stages.crypto import Decrypt, Encrypt
from gevproxy.stages.payload import Transform, check, decode, pack

OUTPUT: Final = b"Could not start check in time"
"""What Mod-Gearman's own worker answers to a check over its `max-age`, but for the capitals."""

_UNKNOWN: Final = 3
"""Return code of a plugin that cannot tell."""

_CHECKS: Final = (b"service", b"host")
"""The types of jobs that somebody waits for; notifications and event handlers are never late."""


class Check(NamedTuple):
    """A check: when Naemon wanted it, where its result goes, whom it is about.

    `service` is empty for a host's check. `seal` packs a text as this check was packed, under the
    same key.
    """

    core_time: float
    result_queue: bytes
    host: bytes
    service: bytes
    seal: Transform


class Answer(NamedTuple):
    """A result, to be submitted at the source."""

    queue: bytes
    unique: bytes
    payload: bytes


class CheckReader:
    """Reads the checks of one forward. Made by `check_reader`."""

    __slots__ = ("_ways",)

    def __init__(self, ways: tuple[tuple[Transform, Transform], ...]) -> None:
        self._ways = ways  # how to open a payload, and how to seal one that was opened so

    def __call__(self, payload: bytes) -> Check | None:
        """Return the check in a payload; None for anything else that can be read.

        A check without core_time or result_queue is None too: it has no age, or nobody hears of
        it. Raises StageError where there is no text of Mod-Gearman's, as under an unknown key.
        """
        for opening, seal in self._ways:
            try:
                text = opening(payload)
            except StageError as error:
                reason = error
            else:
                return _parse(text, seal)
        raise reason


def check_reader(forward: ForwardConfig, *, environ: Mapping[str, str]) -> CheckReader | None:
    """Return what reads a forward's checks, or None where nothing is ever late.

    Raises ConfigError as `stages.build` does.
    """
    if forward.max_age is None:
        return None
    if not forward.decrypt:
        plain = (_plain, pack) if forward.payload is Payload.BASE64 else (check, bytes)
        return CheckReader((plain,))
    try:
        keys = [resolve_key(spec, environ=environ) for spec in forward.decrypt]
    except ConfigError as error:
        pointer = f"{child_pointer('/queues', forward.key)}/decrypt"
        problems = (replace(problem, pointer=pointer) for problem in error.problems)
        raise ConfigError(tuple(problems)) from error
    return CheckReader(tuple((Decrypt([key], any_text=False), Encrypt(key)) for key in keys))


def _plain(payload: bytes) -> bytes:
    return check(decode(payload))


def _parse(text: bytes, seal: Callable[[bytes], bytes]) -> Check | None:
    """Read the header: the lines up to the first empty one. The last of a name counts."""
    if not text.startswith(b"type="):
        return None  # a result, which may be large
    fields = dict(line.partition(b"=")[::2] for line in text.partition(b"\n\n")[0].split(b"\n"))
    kind, queue, host = (fields.get(name, b"") for name in (b"type", b"result_queue", b"host_name"))
    core_time = _seconds(fields.get(b"core_time", b""))
    if kind not in _CHECKS or core_time is None or not host or not queue or 0 in queue:
        return None
    service = fields.get(b"service_description", b"") if kind == b"service" else b""
    return Check(core_time, queue, host, service, seal)


def _seconds(value: bytes) -> float | None:
    try:
        seconds = float(value)
    except ValueError:
        return None
    return seconds if isfinite(seconds) else None


def answer(late: Check, now: float) -> Answer:
    """Return the result that tells Naemon to schedule a late check anew.

    Its unique is made of the check's own name and time: should it be submitted twice, because the
    source was cut before it confirmed the first, gearmand makes one of both.
    """
    lines = [
        b"host_name=" + late.host,
        b"core_start_time=%f" % late.core_time,
        b"start_time=%f" % now,
        b"finish_time=%f" % now,
        b"return_code=%d" % _UNKNOWN,
        b"exited_ok=1",
        b"source=gevproxy",
    ]
    if late.service:
        lines.append(b"service_description=" + late.service)
    lines.append(b"output=" + OUTPUT)
    name = b"\0".join((late.host, late.service, b"%f" % late.core_time))
    unique = b"late-" + blake2b(name, digest_size=16).hexdigest().encode()
    return Answer(late.result_queue, unique, late.seal(b"\n".join(lines) + b"\n\n\n\n"))
