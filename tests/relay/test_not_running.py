"""How long a forward has not run: whoever waits for `critical_after` relies on it."""

from tests.kit.eventually import eventually
from tests.kit.peers import numbered, submit
from tests.kit.relay import config
from tests.kit.scripted import ScriptedServer
from tests.kit.servers import Gearmand
from tests.relay.forwarding import HERE, CheckedRelay, forward, relay

LONG = 3.0  # seconds that a new forward does not reach at once

CRASHES = """
import os
from pathlib import Path
from gevproxy.__main__ import main
from gevproxy.forward import Forward

tick = Forward.tick

def broken_tick(self, now):
    tick(self, now)
    if not self.counters.crashes and Path(os.environ["STATE_DIRECTORY"], "crash").exists():
        raise RuntimeError("a bug in a forward")

Forward.tick = broken_tick
raise SystemExit(main())
"""


class Nobody:
    """A server that is not there."""

    address = "127.0.0.1:1"


def not_running(proxy: CheckedRelay) -> float:
    """Return for how long the only forward has not run, in seconds."""
    seconds: float = proxy.only_stats()["not_running"]
    return seconds


def test_it_goes_on_over_a_crash_and_a_reload() -> None:
    """A forward that takes another's place is as old in its misery."""
    source = Nobody()
    with ScriptedServer() as target:
        proxy = relay(source, target)
        proxy.program = ("-c", CRASHES)
        proxy.crashes = True
        with proxy:
            eventually(lambda: not_running(proxy) > LONG, 30.0, 0.2)
            mark = len(proxy.records)
            (proxy.state_folder / "crash").touch()
            proxy.wait_event("forward_crashed", 20.0)
            proxy.wait_event("target_up", 20.0, mark)
            assert not_running(proxy) > LONG
            mark = len(proxy.records)
            proxy.configure(config(forward(source, target, window=500)))
            proxy.hup()
            assert proxy.wait_event("reloaded")["changed"]
            proxy.wait_event("target_up", 20.0, mark)
            assert not_running(proxy) > LONG


def test_a_changed_forward_knows_when_a_job_passed_last(gearmand_a: Gearmand) -> None:
    """Without that, a forward that is stuck would be a new one for whoever watches it."""
    with ScriptedServer() as target, relay(gearmand_a, target) as proxy:
        assert proxy.only_stats().get("since_confirm") is None
        submit(gearmand_a.port, numbered(HERE, 1))
        proxy.wait_counter("confirmed", 1)
        proxy.configure(config(forward(gearmand_a, target, window=500)))
        proxy.hup()
        assert proxy.wait_event("reloaded")["changed"]
        eventually(lambda: not proxy.only_stats()["reasons"], 20.0, 0.2)
        assert proxy.only_stats().get("since_confirm") is not None
