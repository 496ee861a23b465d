"""Queue addresses: one spelling each, and a sentence for whatever is none."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gevproxy.config import QueueAddress, parse_address
from gevproxy.gearman.job import Server


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("127.0.0.1:4730/q", QueueAddress(Server("127.0.0.1", 4730), "q")),
        ("Gearman.Example/q", QueueAddress(Server("gearman.example", 4730), "q")),
        ("host:1/a/b:c", QueueAddress(Server("host", 1), "a/b:c")),
        ("[::1]:65535/q", QueueAddress(Server("::1", 65535), "q")),
        ("[2001:DB8:0::33]/q", QueueAddress(Server("2001:db8::33", 4730), "q")),
        ("[fe80::1%eth0]/q", QueueAddress(Server("fe80::1%eth0", 4730), "q")),
        ("h/" + "ü" * 256, QueueAddress(Server("h", 4730), "ü" * 256)),
    ],
)
def test_an_address_is_read(text: str, address: QueueAddress) -> None:
    assert parse_address(text) == address


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "host is missing"),
        ("host", "names no queue"),
        ("host:4730/", "queue's name is missing"),
        (":4730/q", "host is missing"),
        ("host:/q", "number from 1 to 65535"),
        ("host:0/q", "number from 1 to 65535"),
        ("host:65536/q", "number from 1 to 65535"),
        ("host:٣/q", "number from 1 to 65535"),
        ("host:" + "9" * 5000 + "/q", "number from 1 to 65535"),
        ("::1:4730/q", "goes in brackets"),
        ("[::1/q", "IPv6 is written"),
        ("[::1]4730/q", "IPv6 is written"),
        ("[host]:4730/q", "no IP address"),
        ("1.2.3/q", "no IP address"),
        ("ho st/q", "no host name"),
        ("-host/q", "no host name"),
        ("a" * 254 + "/q", "no host name"),
        ("host/a b", "no white space"),
        ("host/a\0", "control characters"),
        ("host/a\u00a0", "no white space"),
        ("host/" + "ü" * 257, "514 bytes"),
    ],
)
def test_what_is_no_address_is_refused_with_the_reason(text: str, reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        parse_address(text)


@settings(deadline=None)  # other work may slow the machine down
@given(st.text() | st.from_regex(r"\[?[a-z0-9:.]*\]?(:[0-9]*)?/[a-z ]*"))
def test_an_address_is_read_back_from_its_text_and_nothing_else_is_raised(text: str) -> None:
    try:
        address = parse_address(text)
    except ValueError as error:
        assert type(error) is ValueError  # noqa: PT017 - not one of its subclasses
        return
    assert parse_address(str(address)) == address
