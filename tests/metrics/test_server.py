"""The server: addresses and reloads, probes, and clients that mean no good."""

import contextlib
import json
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from gevproxy.metrics_server import AT_ONCE, MAX_REQUEST
from tests.kit.eventually import eventually
from tests.kit.peers import Consumer, Job, SyncClient, numbered, submit
from tests.kit.ports import free_port
from tests.kit.relay import ROOT, Record, Relay, config
from tests.kit.servers import Gearmand
from tests.metrics.kit import get, raw, scrape, value
from tests.operate.test_reload import reload

NOWHERE = {"127.0.0.1:1/q": "127.0.0.1:2/q"}

HOPELESS = """
from gevproxy.__main__ import main
from gevproxy.supervisor import Supervisor
Supervisor.tick = lambda self, now: False
raise SystemExit(main())
"""
"""The program where starting a forward anew does not help any more."""

WITHOUT = """
import sys
sys.modules["prometheus_client"] = None
from gevproxy.__main__ import main
raise SystemExit(main())
"""
"""The program where prometheus-client is not installed."""


def settings(port: int, host: str = "127.0.0.1") -> Record:
    """Return a configuration whose metrics are there."""
    return config(NOWHERE, metrics={"listen": f"{host}:{port}"})


@contextlib.contextmanager
def serving(port: int) -> Iterator[Relay]:
    """Run a relay with metrics at a port."""
    with Relay(settings(port)) as relay:
        relay.wait_event("metrics_up")
        yield relay


@contextlib.contextmanager
def taken() -> Iterator[int]:
    """Give a port that somebody else listens at."""
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        yield int(other.getsockname()[1])


def refused(relay: Relay, port: int) -> Record:
    """Reload, to be refused for want of a port; return the only problem."""
    mark = len(relay.records)
    assert reload(relay)["event"] == "reload_refused"
    (problem,) = relay.events("config_problem", mark)
    assert (problem["pointer"], problem["file"]) == ("/metrics/listen", str(relay.config_file))
    assert f"127.0.0.1:{port}: address already in use: name a free port" in problem["message"]
    return problem


def test_methods_paths_and_requests_that_are_none() -> None:
    with serving(port := free_port()) as relay:
        whole, head = get(port), get(port, method="HEAD")
        assert (whole.code, head.code, head.body) == (200, 200, b"")
        assert abs(int(head.headers["Content-Length"]) - len(whole.body)) < 200
        assert get(port, "/metrics?name[]=x").code == 200
        assert get(port, "/").code == get(port, "/-/quit", "HEAD").code == 404
        post = get(port, method="POST")
        assert (post.code, post.headers["Allow"]) == (405, "GET, HEAD")
        assert raw(port, b"stats\r\n\r\n").startswith(b"HTTP/1.1 400 ")
        assert raw(port, b"\0\r\n\r\n").startswith(b"HTTP/1.1 400 ")
        assert raw(port, b"\n\n").startswith(b"HTTP/1.1 400 ")
        assert raw(port, b"GET /" + b"x" * 4 * MAX_REQUEST).startswith(b"HTTP/1.1 431 ")
        found = scrape(port)
        codes = {
            code: value(found, "gevproxy_http_requests_total", code=code)
            for code in ("200", "400", "404", "405", "431")
        }
        assert codes == {"200": 3, "400": 3, "404": 2, "405": 1, "431": 1}
        assert relay.events("metrics_refused")
        assert not relay.events("metrics_failed")


def test_probes_say_why_not(gearmand_a: Gearmand, gearmand_b: Gearmand) -> None:
    a, b, port = gearmand_a, gearmand_b, free_port()
    key = f"{a.address}/q"
    with Relay(config({key: f"{b.address}/q"}, metrics={"listen": f"127.0.0.1:{port}"})) as relay:
        eventually(lambda: relay.events("metrics_up") and get(port, "/-/ready").code == 200)
        b.kill()
        eventually(lambda: get(port, "/-/ready").code == 503, what="not ready")
        assert f"not ready: {key} (target away: ".encode() in get(port, "/-/ready").body
        assert get(port, "/-/healthy")[::2] == (200, b"healthy\n")
        assert value(scrape(port), "gevproxy_forward_state", forward=key, state="target_away") == 1


def test_a_target_that_has_enough_is_no_fault(gearmand_a: Gearmand, gearmand_b: Gearmand) -> None:
    a, b, port = gearmand_a, gearmand_b, free_port()
    key = f"{a.address}/q"
    forward = {"remote_queue": f"{b.address}/q", "max_target_waiting": 5}
    with Relay(config({key: forward}, poll=1, metrics={"listen": f"127.0.0.1:{port}"})) as relay:
        relay.wait_event("source_up")
        submit(a.port, numbered(b"q", 10))

        def told(name: str, **labels: str) -> float | None:
            return value(scrape(port), f"gevproxy_{name}", forward=key, **labels)

        eventually(lambda: told("forward_state", state="held_back") == 1, 20.0, what="held back")
        submit(a.port, [Job(b"q", b"later-%d" % n, b"w") for n in range(3)])
        eventually(lambda: told("source_jobs_waiting") == 3, 20.0, what="3 jobs wait")
        assert told("target_jobs_waiting") == 10
        assert told("target_workers") == 0
        assert told("not_running_seconds") == 0
        assert get(port, "/-/ready").code == 200


def test_not_healthy_is_what_the_watchdog_ends() -> None:
    port = free_port()
    relay = Relay(settings(port))
    relay.program = ("-c", HOPELESS)
    with relay:
        relay.wait_event("metrics_up")
        eventually(lambda: get(port, "/-/healthy").code == 503, what="not healthy")
        assert get(port, "/-/healthy").body.startswith(b"not healthy: a forward stands still")


def test_a_relay_that_drains_is_not_ready_and_still_tells(
    gearmand_a: Gearmand, gearmand_b: Gearmand
) -> None:
    a, b, port = gearmand_a, gearmand_b, free_port()
    queues = {f"{a.address}/q": {"remote_queue": f"{b.address}/q", "async": False}}
    with Relay(config(queues, metrics={"listen": f"127.0.0.1:{port}"}, drain=20)) as relay:
        relay.wait_event("source_up")
        with SyncClient(a.port) as client:
            client.submit(b"q", b"w")
            eventually(
                lambda: value(scrape(port), "gevproxy_jobs_in_flight", forward=f"{a.address}/q")
            )
            relay.term()
            relay.wait_event("daemon_stopping")
            assert get(port, "/-/ready")[::2] == (503, b"not ready: stopping\n")
            held = value(scrape(port), "gevproxy_jobs_held", forward=f"{a.address}/q")
            assert held == 1
            relay.term()
            assert relay.wait() == 0


def test_clients_that_mean_no_good_hold_up_nobody_for_long(
    gearmand_a: Gearmand, gearmand_b: Gearmand
) -> None:
    """More than are served at once, some silent and some that read nothing; jobs flow meanwhile."""
    a, b, port = gearmand_a, gearmand_b, free_port()
    queues = {f"{a.address}/q{n}": f"{b.address}/q{n}" for n in range(100)}
    with (
        Relay(config(queues, metrics={"listen": f"127.0.0.1:{port}"})) as relay,
        Consumer(b.port, b"q0") as consumer,
        contextlib.ExitStack() as stack,
    ):
        relay.wait_event("metrics_up")
        for n in range(AT_ONCE + 2):
            sock = stack.enter_context(socket.socket())
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 2048)
            sock.connect(("127.0.0.1", port))
            sock.sendall(b"GET /metrics HTTP/1.1\r\n" + (b"\r\n" if n % 2 else b""))
        submit(a.port, numbered(b"q0", 5000))
        consumer.wait_for(5000)
        for text in ("no whole request within 5 s", "an answer was not taken within 10 s"):
            relay.wait_event("metrics_refused", 30.0, message=text)
        assert value(scrape(port), "gevproxy_http_requests_total", code="408")
        assert not relay.events("loop_stalled")


def test_the_address_is_changed_and_taken_away_by_a_reload() -> None:
    """Also to another address at the same port, where both cannot be open at once."""
    with serving(port := free_port()) as relay:
        relay.configure(settings(other := free_port()))
        assert reload(relay)["event"] == "reloaded"
        assert get(other).code == 200
        with pytest.raises(ConnectionRefusedError):
            get(port)
        relay.configure(settings(other, "0.0.0.0"))  # noqa: S104 - the test's own
        assert reload(relay)["event"] == "reloaded"
        assert get(other).code == 200
        if Path("/proc/net/if_inet6").exists():
            relay.configure(settings(other, "[::]"))
            assert reload(relay)["event"] == "reloaded"
            assert get(other).code == 200
        relay.configure(config(NOWHERE))
        assert reload(relay)["event"] == "reloaded"
        with pytest.raises(ConnectionRefusedError):
            get(other)


def test_a_port_that_is_taken_is_a_problem_with_its_place() -> None:
    """On a reload everything stays as it was; a start ends with 78."""
    with serving(port := free_port()) as relay, taken() as other:
        relay.configure(settings(other))
        refused(relay, other)
        reloads = "gevproxy_config_last_reload_successful"
        assert value(scrape(port), reloads) == 0
        relay.configure({**settings(free_port()), "log_file": "/nonexistent/folder/log"})
        assert reload(relay)["event"] == "reload_refused"
        assert get(port).code == 200
        relay.configure(settings(port))
        assert reload(relay)["event"] == "reloaded"
        assert value(scrape(port), reloads) == 1
        with Relay(settings(other)) as second:
            assert second.wait() == 78
            (problem,) = second.events("config_problem")
            assert problem["line"] > 0
            assert f"ss -ltnp sport = :{other}" in problem["message"]
            assert not second.events("daemon_started")


def test_without_the_package_only_the_option_is_missing() -> None:
    relay = Relay(config(NOWHERE))
    relay.program = ("-c", WITHOUT)
    with relay:
        relay.wait_event("daemon_started")
        relay.configure(settings(free_port()))
        assert reload(relay)["event"] == "reload_refused"
        text = relay.events("config_problem")[0]["message"]
        assert "pip install 'gevproxy[metrics]'" in text
        done = subprocess.run(
            [sys.executable, "-c", WITHOUT, "check", "--config", str(relay.config_file)],
            capture_output=True,
            cwd=ROOT,
            text=True,
            check=False,
        )
        assert done.returncode == 78
        assert "/metrics/listen: metrics need the Python package prometheus-client" in done.stderr


def test_nothing_of_prometheus_is_imported_without_the_option() -> None:
    code = "import gevproxy.__main__, gevproxy.cli, sys; print('prometheus_client' in sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, cwd=ROOT, text=True, check=True
    )
    assert json.loads(done.stdout.lower()) is False
