"""How long the certificates of a server with TLS hold, and which of them to renew now.

Pure: times are arguments, as time.time() counts them.
"""

import math
from typing import Final

from gevproxy.status import ServerStatus

NAMES: Final = {
    "certificate": "our certificate",
    "ca": "CA",
    "peer": "the server's",
}
"""What a person calls the certificates that `ServerStatus.renew` names."""


def days_until(moment: float | None, now: float) -> float | None:
    """Return days, rounded down: what has expired is below 0. None is not known."""
    return None if moment is None else math.floor((moment - now) / 864) / 100


def to_renew(limit: float, **days: float | None) -> tuple[str, ...]:
    """Return the names of what has fewer than `limit` days left."""
    return tuple(name for name, left in days.items() if left is not None and left < limit)


def in_words(server: ServerStatus) -> str:
    """Return "our certificate 89 days, CA 3,210 days, the server's 12 days: renew it"."""
    known = [
        f"{NAMES[name]} {_left(left)}{': renew it' if name in server.renew else ''}"
        for name, left in _days(server).items()
        if left is not None
    ]
    return ", ".join(known) or "no certificate seen yet"


def sentence(server: ServerStatus) -> str:
    """Return "TLS b:4731: renew our certificate (8 days)"; "" where there is nothing to renew."""
    days = _days(server)
    named = [f"{NAMES[name]} ({_left(days[name])})" for name in server.renew]
    return f"TLS {server.address}: renew {', '.join(named)}" if named else ""


def _days(server: ServerStatus) -> dict[str, float | None]:
    return {
        "certificate": server.certificate_days,
        "ca": server.ca_days,
        "peer": server.peer_days,
    }


def _left(days: float | None) -> str:
    if days is None:
        return "unknown"
    return "expired" if days < 0 else f"{int(days):,} days"
