"""The service on a booted Debian: jobs pass, and it comes back from whatever is done to it."""

import json
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import jsonschema
import pytest

from tests.appliance.conftest import FORWARDS, Measure, Relay
from tests.appliance.traffic import SOURCE, TARGET, counts, finish
from tests.kit.eventually import eventually

LOG_SCHEMA = Path(__file__).parents[2] / "schema/log.schema.json"

WATCHDOG = 30.0
"""Seconds of WatchdogSec= in the unit as it is shipped."""

MANY = 20_000
"""Jobs in a run that something is done to."""

WINDOW = 1000
"""Jobs that may be repeated: `window` of the forward, unless configured."""


def signal_daemon(relay: Relay, number: signal.Signals) -> None:
    relay.bed.run("kill", f"-{number.name.removeprefix('SIG')}", str(relay.pid))


def comes_back(relay: Relay, old: int, deadline: float) -> bool:
    """Wait until another process is the daemon, and ready."""
    return eventually(
        lambda: relay.pid not in (0, old) and relay.is_running(),
        deadline,
        what="another process is ready",
    )


def held(relay: Relay) -> int:
    """Return how many jobs wait for the target's confirmation."""
    return sum(int(forward["held"]) for forward in relay.forwards())


@contextmanager
def under_way(relay: Relay, count: int, prefix: str) -> Iterator[None]:
    """Have jobs held by the relay, because the target is frozen meanwhile."""
    relay.wait_until_connected()
    relay.bed.run("systemctl", "kill", "--signal=STOP", "gearmand-b")
    try:
        sent = relay.traffic.start("submit", SOURCE, "checks", count, prefix)
        eventually(lambda: held(relay) > 0, 60, what="jobs are under way")
        yield
    finally:
        relay.bed.run("systemctl", "kill", "--signal=CONT", "gearmand-b")
    finish(sent)


def test_jobs_go_out_and_results_come_back(relay: Relay) -> None:
    relay.passes(1000)


def test_it_runs_as_its_own_user_and_knows_its_folders(relay: Relay) -> None:
    user = relay.bed.out("ps", "-o", "user=", "-p", str(relay.pid))
    assert user == "gevproxy"
    modes = relay.bed.out("stat", "-c%U:%G %a", "/var/lib/gevproxy", "/run/gevproxy")
    assert modes.splitlines() == ["gevproxy:gevproxy 700", "gevproxy:gevproxy 750"]


def test_the_status_line_tells_how_it_goes(relay: Relay) -> None:
    """`systemctl status` shows figures of now."""
    eventually(lambda: "2 of 2 forwards running" in relay.show("StatusText"), 60)


# --- What is done to it ---------------------------------------------------------------------------


def test_a_frozen_daemon_is_restarted_and_no_job_is_lost(relay: Relay, measured: Measure) -> None:
    """SIGSTOP while jobs are under way; the watchdog of the unit as it is shipped."""
    old = relay.pid
    with under_way(relay, MANY, "frozen"):
        signal_daemon(relay, signal.SIGSTOP)
        began = time.monotonic()
    comes_back(relay, old, WATCHDOG + 60)
    measured("from SIGSTOP to running again", f"{time.monotonic() - began:.1f} s")
    came, different = relay.traffic.take(TARGET, "checks", MANY, "frozen")
    assert different == MANY
    assert came - different <= WINDOW


def test_a_killed_daemon_is_restarted_and_no_job_is_lost(relay: Relay, measured: Measure) -> None:
    old = relay.pid
    with under_way(relay, MANY, "killed"):
        signal_daemon(relay, signal.SIGKILL)
        began = time.monotonic()
    comes_back(relay, old, 60)
    measured("from SIGKILL to running again", f"{time.monotonic() - began:.1f} s")
    came, different = relay.traffic.take(TARGET, "checks", MANY, "killed")
    assert different == MANY
    assert came - different <= WINDOW


def test_a_wedged_callback_is_ended_by_the_watchdog(relay: Relay, measured: Measure) -> None:
    """A callback that never returns holds everything up, once; only this is left to help."""
    relay.bed.write(
        "etc/gevproxy/wedged.py",
        "def wait(data, job):\n    while job.unique == b'wedge0':\n        pass\n    return data\n",
    )
    wedged = {
        "remote_queue": f"127.0.0.1:{TARGET}/wedged",
        "data_callback": "/etc/gevproxy/wedged.py:wait",
        "payload": "raw",
    }
    relay.configure({**FORWARDS, f"127.0.0.1:{SOURCE}/wedge": wedged})
    relay.bed.run("systemctl", "reload", "gevproxy")
    old = relay.pid
    began = time.monotonic()
    relay.traffic.submit(SOURCE, "wedge", 1, "wedge")
    eventually(lambda: relay.pid not in (0, old), WATCHDOG + 60)
    measured("from a wedged callback to a new daemon", f"{time.monotonic() - began:.1f} s")
    # The job is back at its source, and its forward stays away from it: the others run.
    comes_back(relay, old, WATCHDOG + 60)
    relay.passes(prefix="beside")
    assert relay.jobs_waiting(SOURCE, "wedge") == 1
    # The operator takes the callback out; the job is still there.
    relay.configure({**FORWARDS, f"127.0.0.1:{SOURCE}/wedge": f"127.0.0.1:{TARGET}/wedged"})
    relay.bed.run("systemctl", "restart", "gevproxy", timeout=WATCHDOG + 60)
    assert relay.traffic.take(TARGET, "wedged", 1, "wedge") == [1, 1]
    relay.passes(prefix="after")


def test_a_stop_drains(relay: Relay) -> None:
    """A stop in the middle of the traffic repeats nothing."""
    took = relay.traffic.start("take", TARGET, "checks", MANY, "stopped")
    sent = relay.trickle(MANY, "stopped")
    relay.bed.run("systemctl", "stop", "gevproxy")
    assert relay.show("Result") == "success"
    finish(sent)
    relay.bed.run("systemctl", "start", "gevproxy")
    assert counts(took) == [MANY, MANY]


def test_a_long_drain_asks_for_more_time(relay: Relay) -> None:
    """A `drain` beyond TimeoutStopSec= is not cut short: the daemon extends it while it drains."""
    drop_in = "etc/systemd/system/gevproxy.service.d/short.conf"
    relay.bed.write(drop_in, "[Service]\nTimeoutStopSec=3\n")
    relay.bed.run("systemctl", "daemon-reload")
    relay.configure(drain=8)
    relay.bed.run("systemctl", "restart", "gevproxy")
    relay.wait_until_connected()
    relay.bed.run("systemctl", "kill", "--signal=STOP", "gearmand-b")
    try:
        relay.traffic.submit(SOURCE, "checks", 10, "long")
        eventually(lambda: held(relay) == 10, 60)
        began = time.monotonic()
        relay.bed.run("systemctl", "stop", "gevproxy")
        assert time.monotonic() - began >= 8
        assert relay.show("Result") == "success"
    finally:
        relay.bed.run("systemctl", "kill", "--signal=CONT", "gearmand-b")
        (relay.bed.root / drop_in).unlink()
        relay.bed.run("systemctl", "daemon-reload")
    relay.bed.run("systemctl", "start", "gevproxy")
    assert relay.traffic.take(TARGET, "checks", 10, "long")[1] == 10


# --- Configuration --------------------------------------------------------------------------------


def test_a_good_reload_is_in_force_when_it_returns(relay: Relay) -> None:
    old, before = relay.pid, len(relay.events("reloaded"))
    relay.configure({**FORWARDS, f"127.0.0.1:{SOURCE}/more": f"127.0.0.1:{TARGET}/more"})
    assert relay.systemctl("reload") == 0
    assert len(relay.events("reloaded")) == before + 1
    assert relay.pid == old
    relay.traffic.submit(SOURCE, "more", 10, "more")
    assert relay.traffic.take(TARGET, "more", 10, "more") == [10, 10]


def test_a_bad_reload_fails_and_changes_nothing(relay: Relay) -> None:
    old = relay.pid
    relay.configure({**FORWARDS, "127.0.0.1:99999/q": "127.0.0.1/q"}, drian=10)
    assert relay.systemctl("reload") != 0
    assert relay.is_running()
    assert relay.pid == old
    places = [record["pointer"] for record in relay.events("config_problem")]
    assert {"/queues/127.0.0.1:99999~1q", "/drian"} <= set(places)
    assert relay.events("reload_refused")
    relay.passes(prefix="bad")


def test_a_bad_configuration_at_start_is_not_tried_again(relay: Relay) -> None:
    relay.bed.run("systemctl", "stop", "gevproxy")
    relay.configure({})
    assert relay.systemctl("start") != 0
    # RestartSec= is 2; what is asserted is that nothing happens.
    time.sleep(3)
    assert (relay.show("ActiveState"), relay.show("ExecMainStatus")) == ("failed", "78")


def test_keys_reach_the_daemon(relay: Relay) -> None:
    """A file of its own, and a credential: encrypted on the way, decrypted where it arrives."""
    relay.bed.run("install", "-m0600", "-ogevproxy", "/dev/stdin", KEY_FILE, stdin="secret\n")
    relay.bed.run("install", "-Dm0600", "/dev/stdin", CREDENTIAL_FILE, stdin="secret\n")
    drop_in = "etc/systemd/system/gevproxy.service.d/keys.conf"
    relay.bed.write(drop_in, f"[Service]\nLoadCredential=remote_key:{CREDENTIAL_FILE}\n")
    relay.configure(
        {
            f"127.0.0.1:{SOURCE}/plain": {
                "remote_queue": f"127.0.0.1:{TARGET}/secret",
                "encrypt": f"file:{KEY_FILE}",
            },
            f"127.0.0.1:{TARGET}/secret": {
                "remote_queue": f"127.0.0.1:{SOURCE}/clear",
                "decrypt": "credential:remote_key",
                "expect": "any",
            },
        }
    )
    try:
        relay.bed.run("systemctl", "daemon-reload")
        relay.bed.run("systemctl", "restart", "gevproxy")
        relay.bed.run("gearman", f"-p{SOURCE}", "-b", "-fplain", "dHlwZT1ob3N0Cg==")
        assert relay.traffic.run("read", SOURCE, "clear") == "dHlwZT1ob3N0Cg=="
    finally:
        (relay.bed.root / drop_in).unlink()
        relay.bed.run("systemctl", "daemon-reload")
        relay.configure()
        relay.bed.run("systemctl", "restart", "gevproxy")


KEY_FILE = "/etc/gevproxy/keys/remote"
CREDENTIAL_FILE = "/etc/gevproxy/credentials/remote_key"


def test_an_instance_beside_it(relay: Relay) -> None:
    """gevproxy@b has a configuration, state and runtime of its own, and a stop of its own."""
    queues = {f"127.0.0.1:{SOURCE}/b": f"127.0.0.1:{TARGET}/b"}
    relay.bed.write("etc/gevproxy/b/gevproxy.json", json.dumps({"queues": queues}))
    relay.bed.run("systemctl", "start", "gevproxy@b")
    try:
        relay.bed.run("systemctl", "stop", "gevproxy")
        relay.bed.run("systemctl", "reload", "gevproxy@b")
        relay.traffic.submit(SOURCE, "b", 10, "b")
        assert relay.traffic.take(TARGET, "b", 10, "b") == [10, 10]
        assert relay.bed.out("stat", "-c%a", "/run/gevproxy-b", "/var/lib/gevproxy-b") == "750\n700"
    finally:
        relay.bed.run("systemctl", "stop", "gevproxy@b")


# --- Boot -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("how", ["in order", "by a power cut"])
def test_it_is_there_after_a_reboot(relay: Relay, how: str, measured: Measure) -> None:
    seconds = relay.bed.reboot(power_cut=how != "in order")
    relay.wait_until_running()
    measured(f"boot after a halt {how}", f"{seconds:.1f} s")
    relay.passes(prefix=how.replace(" ", "-"))


def test_it_boots_while_the_other_site_is_down(relay: Relay) -> None:
    """Started is not connected: jobs wait at the source, and pass when the target comes up."""
    relay.bed.run("systemctl", "disable", "gearmand-b")
    relay.bed.reboot()
    relay.wait_until_running()
    relay.traffic.submit(SOURCE, "checks", 100, "early")
    eventually(lambda: relay.events("target_away"), 60)
    assert relay.jobs_waiting(SOURCE, "checks") == 100
    relay.bed.run("systemctl", "start", "gearmand-b")
    assert relay.traffic.take(TARGET, "checks", 100, "early") == [100, 100]


# --- The log --------------------------------------------------------------------------------------


def test_every_line_of_the_journal_is_a_record(relay: Relay) -> None:
    """All that the tests above have made it say, on the whole way of the bed's boots."""
    # This does what can be done to it once more: the test may run alone.
    relay.configure({})
    relay.systemctl("reload")
    relay.configure()
    relay.bed.run("systemctl", "restart", "gevproxy")
    relay.passes(prefix="logged")
    lines = relay.log_lines()
    assert len(lines) > 10
    records = [json.loads(line) for line in lines]
    read = "journalctl -tgevproxy -ocat | jq -R --compact-output 'fromjson? | .event'"
    parsed = relay.bed.out("sh", "-c", read)
    assert len(parsed.splitlines()) == len(records)
    if not LOG_SCHEMA.exists():
        pytest.skip("every line is JSON, but there is no schema/log.schema.json to check it with")
    validator = jsonschema.Draft202012Validator(json.loads(LOG_SCHEMA.read_text()))
    for record in records:
        validator.validate(record)
