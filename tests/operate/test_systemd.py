"""What systemd is told through sd_notify(3): readiness, reloads, life, the stop."""

from pathlib import Path

from tests.kit.eventually import eventually
from tests.kit.relay import Relay, config
from tests.kit.systemd import Manager


def test_ready_reload_life_and_stop_are_told_in_order(tmp_path: Path) -> None:
    """Ready although no server is there: a relay must boot while the other site is down."""
    relay = Relay(config({"127.0.0.1:1/q": "127.0.0.1:2/q"}))
    relay.environment["NOTIFY_SOCKET"] = str(tmp_path / "notify")
    with Manager(tmp_path / "notify") as manager, relay:
        eventually(lambda: manager.has("READY=1", "WATCHDOG=1", "STATUS=0 of 1 forwards running"))
        relay.hup()
        reload = ("RELOADING=1", "MONOTONIC_USEC=", "READY=1", "WATCHDOG=1")
        eventually(lambda: manager.has("READY=1", *reload))
        relay.term()
        assert relay.wait() == 0
        assert manager.has("READY=1", *reload, "STOPPING=1")
