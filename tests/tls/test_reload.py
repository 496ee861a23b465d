"""Certificates are renewed under load: who uses them connects anew, the others notice nothing."""

import json
import os
import re
import signal
import subprocess
import sys
from pathlib import Path

from tests.kit.certificates import Authority
from tests.kit.eventually import eventually
from tests.kit.peers import Consumer, Producer, SyncClient, numbered
from tests.kit.relay import ROOT, Relay, config
from tests.kit.servers import Gearmand, Stunnel
from tests.operate.test_reload import ports, reload
from tests.relay.forwarding import CheckedRelay
from tests.relay.ledger import Ledger
from tests.tls.ends import Papers, copy_of, replace, tls

RENEWALS = 6
JOBS = 30_000


def status(relay: Relay, *arguments: str, code: int = 0) -> str:
    """Return what `gevproxy status` prints, and look at its exit code."""
    command = [sys.executable, "-m", "gevproxy", "status", *arguments]
    done = subprocess.run(
        command, cwd=ROOT, env=relay.environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == code, done
    return done.stdout


def test_renewals_under_load(
    papers: Papers, gearmand_a: Gearmand, gearmand_b: Gearmand, tmp_path: Path
) -> None:
    """Exact sets: nothing is lost and, as every forward drains, nothing repeated."""
    a, b = gearmand_a, gearmand_b
    own = copy_of(papers.client, tmp_path)
    pairs = [papers.client, papers.ours.issue("renewed")]
    ledgers = {name: Ledger() for name in (b"secure", b"steady")}
    with Stunnel(b.port, papers.server, papers.ours.cert) as end:
        keys = {name: f"{a.address}/{name.decode()}" for name in ledgers}
        queues = {
            keys[b"secure"]: f"{end.address}/secure",
            keys[b"steady"]: f"{b.address}/steady",
        }
        servers = {end.address: tls(papers.ours, own)}
        with (
            CheckedRelay(config(queues, servers=servers)) as relay,
            Consumer(b.port, b"secure") as secure,
            Consumer(b.port, b"steady") as steady,
        ):
            eventually(lambda: len(relay.events("source_up")) == 2, what="both forwards")
            kept = ports(relay, b)
            assert len(kept) == 1
            producers = [
                Producer(a.port, ledger.book(numbered(name, JOBS, bytes(300))), in_flight=200)
                for name, ledger in ledgers.items()
            ]
            for n in range(1, RENEWALS + 1):
                secure.wait_for(n * JOBS // (RENEWALS + 2))
                mark = len(relay.records)
                replace(own, pairs[n % 2])
                outcome = reload(relay)
                assert (outcome["changed"], outcome["removed"]) == ([keys[b"secure"]], [])
                relay.wait_event("source_up", 30.0, mark, forward=keys[b"secure"])
                assert ports(relay, b) == kept
            mark = len(relay.records)
            assert reload(relay)["changed"] == [], "nothing has changed since"
            for producer, consumer in zip(producers, (secure, steady), strict=True):
                producer.join()
                consumer.wait_for(JOBS)
            ledgers[b"secure"].assert_exact(secure.seen)
            ledgers[b"steady"].assert_exact(steady.seen)
            counters = {key: status["counters"] for key, status in relay.stats().items()}
            assert [each["confirmed"] for each in counters.values()] == [JOBS, JOBS]


def test_a_bad_certificate_changes_nothing(
    papers: Papers, gearmand_a: Gearmand, gearmand_b: Gearmand, tmp_path: Path
) -> None:
    """A reload in the middle of a renewal is refused with the place, and the forward runs on."""
    own = copy_of(papers.client, tmp_path)
    with Stunnel(gearmand_b.port, papers.server, papers.ours.cert) as end:
        queues = {f"{gearmand_a.address}/q": f"{end.address}/q"}
        with (
            CheckedRelay(config(queues, servers={end.address: tls(papers.ours, own)})) as relay,
            Consumer(gearmand_b.port, b"q") as consumer,
        ):
            relay.wait_event("source_up")
            before = ports(relay, gearmand_a) | ports(relay, end)
            own.cert.write_bytes(papers.named.cert.read_bytes())
            assert reload(relay)["event"] == "reload_refused"
            (problem,) = relay.events("config_problem")
            assert problem["pointer"] == f"/servers/{end.address}/tls/key"
            assert problem["message"] == f"{own.key} is not the key of {own.cert}"
            assert problem["line"] > 0
            assert ports(relay, gearmand_a) | ports(relay, end) == before
            with Producer(gearmand_a.port, numbered(b"q", 100)) as producer:
                producer.join()
            consumer.wait_for(100)


def test_days_to_expiry_are_in_every_status(
    papers: Papers, gearmand_a: Gearmand, gearmand_b: Gearmand
) -> None:
    """9 days for ours and the peer's, 30 for the CA; the status queue's server may speak TLS too.

    The Perl proxy's metrics and those of forwards keep their places before the new ones.
    """
    with (
        Stunnel(gearmand_a.port, papers.server) as source,
        Stunnel(gearmand_b.port, papers.server, papers.ours.cert) as end,
    ):
        servers = {
            source.address: tls(papers.ours),
            end.address: tls(papers.ours, papers.client),
        }
        queues = {f"{source.address}/q": f"{end.address}/q"}
        settings = config(queues, servers=servers, status_queue=f"{source.address}/status")
        settings["status"] = {"certificate_days": 5}
        with CheckedRelay(settings) as relay, SyncClient(gearmand_a.port) as client:
            relay.wait_event("source_up")
            relay.wait_event("status_queue_up")
            relay.wait_event("forward_state", message="running")
            of_source, of_end = json.loads(status(relay, "--json"))["servers"]
            for each in (of_source, of_end):
                assert 29 < each["ca_days"] <= 30
                assert 8 < each["peer_days"] <= 9
            assert of_source["certificate_days"] is None
            assert 8 < of_end["certificate_days"] <= 9
            line = f"TLS {end.address}: our certificate 8 days, CA 29 days, the server's 8 days"
            assert line in status(relay)
            asked = ("--queue", f"{source.address}/status", "--config", str(relay.config_file))
            assert f"TLS {source.address}: CA 29 days, the server's 8 days" in status(relay, *asked)
            line = client.call(b"status", b"check")[-1].args[1].decode()
        names = re.findall(r"'([^']+)'=", line)
        new = [f"{server}::{name}" for server in servers for name in ("tls_days", "tls_peer_days")]
        assert names[-4:] == sorted(new)
        assert f"'{end.address}::tls_days'=8.9" in line
        assert f"'{source.address}::tls_days'=29.9" in line


def test_a_certificate_to_renew_is_a_warning_until_it_is_renewed(
    papers: Papers, gearmand_a: Gearmand, gearmand_b: Gearmand, tmp_path: Path
) -> None:
    """The server's is seen without a new connection of a forward, as the depths are asked for.

    An authority that has a successor beside it may expire.
    """
    (tmp_path / "far").mkdir()
    authorities = tmp_path / "ca.pem"
    old = Authority(tmp_path, "old", days=3)
    authorities.write_bytes(old.cert.read_bytes() + papers.ours.cert.read_bytes())
    own, far = copy_of(papers.client, tmp_path), copy_of(papers.server, tmp_path / "far")
    with Stunnel(gearmand_b.port, far, papers.ours.cert) as end:
        queues = {f"{gearmand_a.address}/q": f"{end.address}/q"}
        servers = {end.address: tls(None, own, ca=str(authorities))}
        queue = f"{gearmand_a.address}/status"
        settings = config(queues, servers=servers, poll=0.5, status_queue=queue)
        with CheckedRelay(settings) as relay, SyncClient(gearmand_a.port) as client:
            relay.wait_event("forward_state", message="running")
            relay.wait_event("status_queue_up")
            both = f"TLS {end.address}: renew our certificate (8 days), the server's (8 days)."
            line = client.call(b"status", b"check")[-1].args[1].decode()
            assert line.startswith("1:WARNING - ")
            assert f" running. {both}|" in line
            assert "our certificate 8 days: renew it, CA 2 days, the" in status(relay, code=1)
            replace(own, papers.ours.issue("own for long", days=20))
            assert reload(relay)["changed"] == list(queues)
            line = client.call(b"status", b"check")[-1].args[1].decode()
            assert f"TLS {end.address}: renew the server's (8 days)." in line
            eventually(lambda: len(relay.events("target_up")) == 2, what="the new connection")
            kept = ports(relay, end)
            replace(far, papers.ours.issue("far for long", days=20))
            os.kill(end.pid, signal.SIGHUP)
            eventually(
                lambda: client.call(b"status", b"check")[-1].args[1].startswith(b"0:OK"), 20.0, 0.2
            )
            assert ports(relay, end) & kept
            assert status(relay).startswith("OK - ")
