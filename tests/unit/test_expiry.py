"""Which certificates are to be renewed, and how that is said."""

import pytest

from gevproxy.expiry import days_until, in_words, sentence, to_renew
from gevproxy.status import ServerStatus

DAY = 86400.0


def server(*renew: str, certificate: float | None = 8.9, peer: float | None = -0.5) -> ServerStatus:
    return ServerStatus(
        address="b:4731", certificate_days=certificate, ca_days=3210.0, peer_days=peer, renew=renew
    )


@pytest.mark.parametrize(
    ("moment", "days"),
    [(None, None), (10 * DAY, 10.0), (1.5 * DAY, 1.5), (0.0, 0.0), (-1.0, -0.01)],
)
def test_days_are_rounded_down(moment: float | None, days: float | None) -> None:
    assert days_until(moment, 0.0) == days


def test_what_has_fewer_days_than_wanted_is_to_be_renewed() -> None:
    days = {"certificate": 13.99, "ca": 14.0, "peer": None}
    assert to_renew(14.0, **days) == ("certificate",)
    assert to_renew(0.0, certificate=0.0, peer=-0.01) == ("peer",)


def test_a_server_in_words() -> None:
    assert in_words(server()) == "our certificate 8 days, CA 3,210 days, the server's expired"
    marked = "our certificate 8 days: renew it, CA 3,210 days, the server's expired: renew it"
    assert in_words(server("certificate", "peer")) == marked
    nothing = ServerStatus(address="b:1", certificate_days=None, ca_days=None, peer_days=None)
    assert in_words(nothing) == "no certificate seen yet"


def test_a_sentence_names_what_to_renew() -> None:
    assert sentence(server()) == ""
    expected = "TLS b:4731: renew our certificate (8 days), the server's (expired)"
    assert sentence(server("certificate", "peer")) == expected
