"""Queue addresses as people write them: "host:port/queue".

Pure text in, values out: nothing is resolved or connected.
"""

import re
from contextlib import suppress
from ipaddress import AddressValueError, IPv4Address, IPv6Address

from gevproxy.config.model import QueueAddress
from gevproxy.gearman.job import DEFAULT_PORT, Server

METRICS_PORT = 9730
"""Where metrics are served unless something else is said."""

MAX_QUEUE = 512
"""Bytes; gearmand refuses longer function names."""

MAX_HOST = 253
"""Characters; the DNS knows no longer names."""

MAX_LABEL = 63
"""Characters between two dots of a name; the DNS knows no longer ones."""

_HOST = re.compile(r"[a-z0-9_]([a-z0-9_.-]*[a-z0-9_.])?")
_DIGITS = re.compile(r"[0-9]+")


def parse_address(text: str) -> QueueAddress:
    """Read "host:port/queue"; the port may be missing, an IPv6 address stands in brackets.

    One queue has one address: the host is lower-cased, an IPv6 address shortened, the port filled
    in. Raises ValueError with a sentence for the person who wrote it.
    """
    place, slash, queue = text.partition("/")
    server = parse_server(place)
    if not slash:
        raise ValueError(f'{_quoted(text)} names no queue: write "host:port/queue"')
    return QueueAddress(server, _queue(queue))


def parse_server(text: str) -> Server:
    """Read "host:port"; the port may be missing. ValueError as `parse_address`."""
    if "/" in text:
        raise ValueError(f'{_quoted(text)} names a queue: a server is "host:port" alone')
    host, port = _split_place(text)
    return Server(_host(host), _port(port))


def parse_listen(text: str) -> tuple[str, int]:
    """Read "address:port" of this host to listen at; the port may be missing. ValueError as above.

    No name: what it stands for could be more than one address, or none while we start.
    """
    place, slash, _ = text.partition("/")
    host = ""
    with suppress(ValueError):
        place, port = _split_place(place)
        host = str(IPv6Address(place[1:-1]) if place.startswith("[") else IPv4Address(place))
    if not host or slash:
        raise ValueError(
            f"{_quoted(text)} is no address to listen at: write an IP address of this host and a "
            'port, as in "127.0.0.1:9730" or "[::1]:9730"; 0.0.0.0 and [::] are all of them'
        )
    return host, METRICS_PORT if port is None else _port(port)


def parse_host(text: str) -> str:
    """Read a host's name or address, IPv6 without brackets. ValueError as `parse_address`."""
    host = _host(f"[{text}]" if ":" in text else text)
    if any(not 0 < len(label) <= MAX_LABEL for label in host.removesuffix(".").split(".")):
        raise ValueError(f"{_quoted(text)} is no host name")
    return host


def _split_place(place: str) -> tuple[str, str | None]:
    """Split "host:port" or "[address]:port"; without a colon the port is None."""
    if place.startswith("["):
        address, bracket, rest = place.partition("]")
        if not bracket or (rest and not rest.startswith(":")):
            raise ValueError(
                f'{_quoted(place)} is no address: IPv6 is written "[address]:port/queue"'
            )
        return address + bracket, rest[1:] if rest else None
    if place.count(":") > 1:
        raise ValueError(
            f"{_quoted(place)} has more than one colon: "
            'an IPv6 address goes in brackets, as in "[::1]:4730/queue"'
        )
    host, colon, port = place.partition(":")
    return host, port if colon else None


def _host(text: str) -> str:
    """Return the host in its one spelling, without brackets."""
    host = text.lower()
    try:
        if host.startswith("["):
            return str(IPv6Address(host[1:-1]))
        if _DIGITS.fullmatch(host.replace(".", "")):
            return str(IPv4Address(host))
    except AddressValueError as error:
        raise ValueError(f"{_quoted(text)} is no IP address: {error}") from error
    if not host:
        raise ValueError('the host is missing: write "host:port/queue"')
    if len(host) > MAX_HOST or not _HOST.fullmatch(host):
        raise ValueError(f"{_quoted(text)} is no host name")
    return host


def _port(text: str | None) -> int:
    if text is None:
        return DEFAULT_PORT
    # Five digits are checked before int(): it refuses thousands of them with words of its own.
    if not _DIGITS.fullmatch(text) or len(text) > len("65535") or not 1 <= int(text) <= 65535:  # noqa: PLR2004 - TCP's
        raise ValueError(f"the port is {_quoted(text)}: it must be a number from 1 to 65535")
    return int(text)


def _queue(text: str) -> str:
    if not text:
        raise ValueError('the queue\'s name is missing after the "/"')
    if any(letter.isspace() or not letter.isprintable() for letter in text):
        # gearmand's text protocol, and so gearadmin, separates its columns by white space.
        raise ValueError("a queue's name has no white space or control characters in it")
    if (size := len(text.encode())) > MAX_QUEUE:
        raise ValueError(f"the queue's name has {size} bytes: gearmand takes {MAX_QUEUE} at most")
    return text


def _quoted(text: str) -> str:
    """Quote for a message; a novel is cut short."""
    return f'"{text}"' if len(text) <= 80 else f'"{text[:80]}..."'  # noqa: PLR2004 - a line's width
