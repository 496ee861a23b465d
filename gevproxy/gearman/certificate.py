"""What we want to know of an X.509 certificate: until when it holds, and its public key.

Python's `ssl` tells neither for a certificate of our own. It is a fixed place in DER (RFC 5280,
4.1), so this walks there and reads nothing else. Judges nothing: that is OpenSSL's, which has read
a peer's certificate before us. Bytes in, values out.
"""

import binascii
import re
from collections.abc import Iterator
from datetime import datetime
from typing import Final, NamedTuple

_PEM: Final = re.compile(rb"-----BEGIN CERTIFICATE-----(.+?)-----END CERTIFICATE-----", re.DOTALL)

# Tags of DER (X.690).
_INTEGER, _UTC_TIME, _GENERALIZED_TIME, _SEQUENCE, _VERSION = 0x02, 0x17, 0x18, 0x30, 0xA0

_LONG: Final = 0x80
"""A length of this or more says how many bytes the length has."""


class Certificate(NamedTuple):
    """`not_after` counts as time.time() does; `public_key` is the SubjectPublicKeyInfo in DER."""

    not_after: float
    public_key: bytes


class _Element(NamedTuple):
    tag: int
    whole: bytes
    content: bytes


def read_pem(data: bytes) -> list[bytes]:
    """Return the certificates of a file in DER, in its order. ValueError where it is not base64."""
    return [binascii.a2b_base64(match[1]) for match in _PEM.finditer(data)]


def read_der(der: bytes) -> Certificate:
    """Read one certificate. ValueError where it is none."""
    try:
        outer = next(_elements(der))
        fields = _elements(next(_elements(outer.content)).content)
        first = next(fields)
        if first.tag == _VERSION:  # left out in a certificate of version 1
            first = next(fields)
        _, _, validity, _, public_key = (next(fields) for _ in range(5))
        _, not_after = _elements(validity.content)
        if (outer.tag, first.tag, public_key.tag) != (_SEQUENCE, _INTEGER, _SEQUENCE):
            raise ValueError("no certificate")
        return Certificate(_time(not_after), public_key.whole)
    except (IndexError, RuntimeError, StopIteration) as error:
        raise ValueError("no certificate") from error


def _elements(data: bytes) -> Iterator[_Element]:
    """Yield the elements of a DER string, one after the other. IndexError where it is cut short."""
    at = 0
    while at < len(data):
        tag, length, begin = data[at], data[at + 1], at + 2
        if length >= _LONG:
            begin += length - _LONG
            length = int.from_bytes(data[at + 2 : begin])
        end = begin + length
        if end > len(data):
            raise IndexError
        yield _Element(tag, data[at:end], data[begin:end])
        at = end


def _time(element: _Element) -> float:
    text = element.content.decode("ascii")
    if element.tag == _UTC_TIME:  # two digits of the year; RFC 5280 says of which century
        text = ("19" if text >= "50" else "20") + text
    elif element.tag != _GENERALIZED_TIME:
        raise ValueError("no time")
    return datetime.strptime(text, "%Y%m%d%H%M%S%z").timestamp()
