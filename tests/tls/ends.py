"""What these tests ask of a relay and of its ends with TLS."""

from contextlib import ExitStack
from pathlib import Path
from typing import Any, NamedTuple, Self

from tests.kit.certificates import Authority, Pair
from tests.kit.relay import Record, config
from tests.kit.servers import Gearmand, Stunnel
from tests.relay.forwarding import Addressed, CheckedRelay, forward

TLS_1_1 = ("sslVersionMin = TLSv1.1", "sslVersionMax = TLSv1.1", "ciphers = ALL:@SECLEVEL=0")
TLS_1_2 = ("sslVersionMax = TLSv1.2",)
VERSIONS = [TLS_1_2, ()]


class Papers(NamedTuple):
    """Two authorities, and certificates for 127.0.0.1 but for `named`."""

    ours: Authority
    foreign: Authority
    server: Pair
    client: Pair
    expired: Pair
    named: Pair
    stranger: Pair  # signed by the foreign authority


def tls(authority: Authority | None, pair: Pair | None = None, **options: object) -> Record:
    """Return the entry of a server in `servers`."""
    own = {"cert": str(pair.cert), "key": str(pair.key)} if pair else {}
    ca = {"ca": str(authority.cert)} if authority else {}
    return {"tls": {**ca, **own, **options}}


def relay(
    source: Addressed,
    target: Addressed,
    servers: dict[str, Record],
    **options: Any,  # noqa: ANN401 - JSON
) -> CheckedRelay:
    """Return a relay with one forward."""
    return CheckedRelay(config(forward(source, target, **options), servers=servers))


class Tunnels:
    """A gearmand on either side, each behind a stunnel that demands our client certificate."""

    def __init__(self, papers: Papers, *options: str) -> None:
        self.papers = papers
        self.options = options

    def __enter__(self) -> Self:
        with ExitStack() as stack:
            self.a, self.b = (stack.enter_context(Gearmand()) for _ in range(2))
            self.source, self.target = (
                stack.enter_context(
                    Stunnel(server.port, self.papers.server, self.papers.ours.cert, *self.options)
                )
                for server in (self.a, self.b)
            )
            self.stack = stack.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self.stack.close()

    def servers(self, pair: Pair | None = None) -> dict[str, Record]:
        """Return `servers` for both ends."""
        entry = tls(self.papers.ours, pair or self.papers.client)
        return {self.source.address: entry, self.target.address: entry}

    def relay(self, **options: Any) -> CheckedRelay:  # noqa: ANN401 - JSON
        """Return a relay from the one to the other."""
        return relay(self.source, self.target, self.servers(), **options)


def copy_of(pair: Pair, folder: Path) -> Pair:
    """Return a copy that a test may change."""
    copy = Pair(folder / "own.pem", folder / "own.key")
    replace(copy, pair)
    return copy


def replace(old: Pair, new: Pair) -> None:
    """Put another certificate and key into the place of one, as a renewal does."""
    old.cert.write_bytes(new.cert.read_bytes())
    old.key.touch(mode=0o600)
    old.key.write_bytes(new.key.read_bytes())
