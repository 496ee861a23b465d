"""Who is let in and who is not, and what an operator reads of it: every combination."""

import json
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import NamedTuple

import pytest

from gevproxy.dead_letters import DeadLetters
from tests.dead_letters.command import run as dead_letters
from tests.dead_letters.letters import letters, written
from tests.kit.certificates import Pair, pin_of
from tests.kit.eventually import eventually
from tests.kit.peers import numbered, submit
from tests.kit.relay import Record, config
from tests.kit.servers import Geard, Gearmand, Server, Stunnel
from tests.relay.forwarding import CheckedRelay
from tests.tls.ends import TLS_1_1, TLS_1_2, Papers, tls

NAME = "gearman-b.example.com"
NO_CA = "certificate verify failed: it is not signed by the CA that we trust"
WRONG_NAME = "certificate verify failed: wrong name: it is not for "
NO_TLS = "TLS handshake: does it speak TLS?"


class End(NamedTuple):
    """A target with TLS, how the relay is told to speak to it, and what must come of that."""

    server: Server
    entry: Record | None
    reason: str  # "" where all is well


class Ends(NamedTuple):
    """All of them, by what they are for, and the source of all forwards."""

    source: Gearmand
    ends: dict[str, End]

    def settings(self) -> Record:
        """Return a configuration with a forward to each."""
        queues = {
            f"{self.source.address}/{name}": f"{end.server.address}/there"
            for name, end in self.ends.items()
        }
        servers = {end.server.address: end.entry for end in self.ends.values() if end.entry}
        return config(queues, servers=servers)


@pytest.fixture(scope="module")
def everything(papers: Papers, has_gearmand: None) -> Iterator[Ends]:  # noqa: ARG001 - its check
    """Start one of each, all at once."""
    with ExitStack() as stack:
        source, behind, bare, listens_plain = (stack.enter_context(Gearmand()) for _ in range(4))
        good = tls(papers.ours)
        ours, client, foreign = papers.ours, papers.client, papers.foreign
        bad_pin = pin_of(papers.client.cert)
        hexadecimal = _hex_pin(papers.server.cert)

        def stunnel(pair: Pair | None = None, *options: str, demands: bool = False) -> Stunnel:
            authority = ours.cert if demands else None
            return stack.enter_context(
                Stunnel(behind.port, pair or papers.server, authority, *options)
            )

        def geard() -> Geard:
            key, cert, ca = papers.server.key, papers.server.cert, ours.cert
            return stack.enter_context(Geard(str(key), str(cert), str(ca)))

        yield Ends(
            source,
            {
                "right": End(stunnel(), good, ""),
                "right_1_2": End(stunnel(None, *TLS_1_2), good, ""),
                "wrong_ca": End(stunnel(), tls(foreign), NO_CA),
                "system_ca": End(stunnel(), tls(None), NO_CA),
                "wrong_name": End(stunnel(papers.named), good, f"{WRONG_NAME}127.0.0.1"),
                "server_name": End(stunnel(papers.named), tls(ours, server_name=NAME), ""),
                "other_name": End(stunnel(), tls(ours, server_name=NAME), WRONG_NAME + NAME),
                "expired": End(
                    stunnel(papers.expired), good, "certificate verify failed: it, or its CA, has"
                ),
                "client": End(stunnel(demands=True), tls(ours, client), ""),
                "no_client": End(
                    stunnel(demands=True), good, "the peer demands a client certificate"
                ),
                "no_client_1_2": End(
                    stunnel(None, *TLS_1_2, demands=True), good, "no common ground with the peer"
                ),
                "foreign_client": End(
                    stunnel(demands=True),
                    tls(ours, papers.stranger),
                    "the peer refuses our certificate: it does not trust our CA",
                ),
                "geard": End(geard(), tls(ours, client), ""),
                "geard_no_client": End(geard(), good, "no common ground with the peer"),
                "plain_there": End(bare, good, NO_TLS),
                "plain_here": End(stunnel(), None, "reset by peer"),
                "pin": End(stunnel(), tls(ours, pin_sha256=pin_of(papers.server.cert)), ""),
                "pins": End(stunnel(), tls(ours, pin_sha256=[bad_pin, hexadecimal]), ""),
                "wrong_pin": End(
                    stunnel(),
                    tls(ours, pin_sha256=bad_pin),
                    "the peer's public key is not one of pin_sha256",
                ),
                "old": End(
                    stunnel(None, *TLS_1_1), good, "the peer does not speak TLS 1.2 or newer"
                ),
                "both_plain": End(listens_plain, None, ""),
            },
        )


def _hex_pin(cert: Path) -> str:
    """Return a pin as openssl prints it without further ado."""
    command = 'openssl x509 -in "$1" -noout -pubkey | openssl pkey -pubin -outform DER | sha256sum'
    done = subprocess.run(["sh", "-c", command, "-", str(cert)], check=True, capture_output=True)
    return done.stdout.decode().split()[0]


def test_a_relay_runs_where_all_is_right_and_says_why_not_elsewhere(everything: Ends) -> None:
    """Nothing is taken from the source for an end that is not what it should be."""
    with CheckedRelay(everything.settings()) as relay:
        for name, end in everything.ends.items():
            submit(everything.source.port, numbered(name.encode(), 3))
            key = f"{everything.source.address}/{name}"
            if end.reason:
                message = relay.wait_event("target_away", 30.0, forward=key)["message"]
                assert end.reason in message, name
            else:
                relay.wait_event("source_up", 30.0, forward=key)
        for name, end in everything.ends.items():
            key = f"{everything.source.address}/{name}"
            if end.reason:
                assert everything.source.admin.queue(name) == (3, 0, 0), name
                assert not relay.events("target_up", forward=key)
            else:
                eventually(lambda: everything.source.admin.queue(name).total == 0)  # noqa: B023


def test_check_connect_says_the_same(everything: Ends, tmp_path: Path) -> None:
    file = tmp_path / "gevproxy.json"
    file.write_text(json.dumps(everything.settings()))
    done = subprocess.run(
        [sys.executable, "-m", "gevproxy", "check", "--connect", "--config", str(file)],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 1, done.stderr
    lines = {
        line.split()[2].removesuffix(":"): line
        for line in done.stdout.splitlines()
        if line.startswith("  target")
    }
    for name, end in everything.ends.items():
        line = lines[end.server.address]
        assert ("FAILED" if end.reason else " ok ") in line, name
        assert end.reason in line, name
        assert ("TLSv1." in line) == (end.entry is not None and not end.reason), name
    assert "TLSv1.2, gearmand" in lines[everything.ends["right_1_2"].server.address]


def test_dead_letters_are_replayed_through_tls(
    papers: Papers, gearmand_a: Gearmand, tmp_path: Path
) -> None:
    """To the source, as the configuration says; without one the source is not reached at all."""
    folder = tmp_path / "letters"
    with Stunnel(gearmand_a.port, papers.server) as end:
        DeadLetters(folder).write(letters(10, source=f"{end.address}/q"))
        file = tmp_path / "gevproxy.json"
        queues = {f"{end.address}/q": f"{gearmand_a.address}/other"}
        servers = {end.address: tls(papers.foreign)}
        file.write_text(json.dumps(config(queues, servers=servers, dead_letters=str(folder))))
        assert dead_letters("replay", "--all", "--config", str(file)) == 1
        assert len(written(folder)) == 10
        servers = {end.address: tls(papers.ours)}
        file.write_text(json.dumps(config(queues, servers=servers)))
        arguments = ("--folder", str(folder), "--config", str(file))
        assert dead_letters("replay", "--all", *arguments) == 0
        assert written(folder) == []
        assert gearmand_a.admin.queue("q").total == 10
