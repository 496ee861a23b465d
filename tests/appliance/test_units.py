"""The units: they say the same, systemd takes them, and what they forbid is forbidden."""

import json
import re
from pathlib import Path

from tests.appliance.conftest import Measure, Relay
from tests.appliance.traffic import SOURCE, TARGET

UNITS = Path(__file__).parents[2] / "systemd"

EXPOSURE = 1.2
"""What `systemd-analyze security` may give at most, of 10."""

CALLBACKS = '''
"""Tries what a callback has no business to do, and answers with what was let through."""

import ctypes, json, mmap, os, socket, subprocess, time


def write(path):
    with open(path, "w") as file:
        file.write("x")


def listen():
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()


def execute_own_file():
    path = os.environ["STATE_DIRECTORY"] + "/program"
    write(path)
    os.chmod(path, 0o700)
    try:
        subprocess.run([path], check=True)
    finally:
        os.unlink(path)


def call(name, *arguments):
    libc = ctypes.CDLL(None, use_errno=True)
    if getattr(libc, name)(*arguments) < 0:
        raise OSError(ctypes.get_errno(), name)


ATTEMPTS = {
    "write to /etc": lambda: write("/etc/gevproxy/x"),
    "write to /usr": lambda: write("/usr/lib/x"),
    "write to /var": lambda: write("/var/tmp/../lib/x"),
    "read /root": lambda: os.listdir("/root/.ssh"),
    "read another's key": lambda: open("/etc/shadow"),
    "see other processes": lambda: os.listdir("/proc/1/fd") and None,
    "read the kernel's log": lambda: open("/dev/kmsg"),
    "offer a port": listen,
    "execute what it has written": execute_own_file,
    "writable and executable memory": lambda: mmap.mmap(
        -1, 4096, prot=mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC
    ),
    "a netlink socket": lambda: socket.socket(socket.AF_NETLINK, socket.SOCK_RAW),
    "a raw socket": lambda: socket.socket(socket.AF_INET, socket.SOCK_RAW, 1),
    "a new namespace": lambda: call("unshare", 0x10000000),
    "another personality": lambda: call("personality", 0x0040000),
    "become root": lambda: os.setuid(0),
    "raise its priority": lambda: os.nice(-5),
    "set the clock": lambda: time.clock_settime(time.CLOCK_REALTIME, time.time()),
    "trace": lambda: call("ptrace", 16, 1, None, None),
    "mount": lambda: call("mount", b"none", b"/tmp", b"tmpfs", 0, None),
}

MEANT_TO_WORK = {
    "resolve a name": lambda: socket.getaddrinfo("localhost", 4730),
    "connect": lambda: socket.create_connection(("127.0.0.1", 4730)).close(),
    "write to its state": lambda: write(os.environ["STATE_DIRECTORY"] + "/x"),
    "write to /tmp": lambda: write("/tmp/x"),
    "run a program": lambda: subprocess.run(["/bin/true"], check=True),
}


def probe(data, job):
    outcome = {}
    for name, attempt in {**ATTEMPTS, **MEANT_TO_WORK}.items():
        try:
            attempt()
        except (OSError, subprocess.SubprocessError) as error:
            outcome[name] = f"{type(error).__name__}: {error}"
        else:
            outcome[name] = "allowed"
    return json.dumps(outcome).encode()
'''


def settings(unit: str) -> list[str]:
    """Return the lines of a unit that are no comments."""
    lines = (UNITS / unit).read_text().splitlines()
    return [line for line in lines if line and not line.startswith("#")]


def test_the_template_says_the_same() -> None:
    """gevproxy@.service differs in names and paths, and in nothing else."""
    only_in_one = {
        "Description=Gearman relay gevproxy": "Description=Gearman relay gevproxy (%i)",
        "ConditionPathExists=|/etc/gevproxy/gevproxy.json": None,
        "ConditionPathExistsGlob=|/etc/gevproxy/conf.d/*.json": (
            "ConditionPathExistsGlob=/etc/gevproxy/%i/*.json"
        ),
        "ExecStart=/usr/bin/gevproxy run": (
            "ExecStart=/usr/bin/gevproxy run --config /etc/gevproxy/%i"
        ),
        "StateDirectory=gevproxy": "StateDirectory=gevproxy-%i",
        "RuntimeDirectory=gevproxy": "RuntimeDirectory=gevproxy-%i",
        "LogsDirectory=gevproxy": "LogsDirectory=gevproxy-%i",
        "ConfigurationDirectory=gevproxy": "ConfigurationDirectory=gevproxy/%i",
    }
    translated = [only_in_one.get(line, line) for line in settings("gevproxy.service")]
    assert settings("gevproxy@.service") == [line for line in translated if line]


def test_systemd_takes_them_without_a_word(installed: Relay) -> None:
    done = installed.bed.run(
        "systemd-analyze", "verify", "gevproxy.service", "gevproxy@a.service", check=False
    )
    assert (done.returncode, done.stdout + done.stderr) == (0, "")


def test_exposure(installed: Relay, measured: Measure) -> None:
    for unit in ("gevproxy.service", "gevproxy@a.service"):
        if "@" in unit:
            installed.bed.write("etc/gevproxy/a/gevproxy.json", "{}")
            installed.systemctl("start", unit)  # fails, and is loaded
        text = installed.bed.out("systemd-analyze", "security", "--no-pager", unit)
        found = re.search(r"Overall exposure level for \S+: ([\d.]+)", text)
        assert found
        measured(f"exposure of {unit}", found[1])
        assert float(found[1]) <= EXPOSURE, text


def test_what_is_forbidden_is_forbidden(relay: Relay) -> None:
    """A callback tries it: it runs where the daemon runs."""
    relay.bed.write("etc/gevproxy/callbacks.py", CALLBACKS)
    forward = {
        "remote_queue": f"127.0.0.1:{TARGET}/probed",
        "payload": "raw",
        "data_callback": "/etc/gevproxy/callbacks.py:probe",
    }
    relay.configure({f"127.0.0.1:{SOURCE}/probe": forward})
    relay.bed.run("systemctl", "reload", "gevproxy")
    relay.traffic.submit(SOURCE, "probe", 1, "probe")
    outcome = json.loads(relay.traffic.run("read", TARGET, "probed"))
    allowed = {name for name, what in outcome.items() if what == "allowed"}
    if relay.bed.suite == "bookworm":
        allowed -= {"offer a port"}  # its systemd is built without BPF_FRAMEWORK
    assert allowed == {
        "resolve a name",
        "connect",
        "write to its state",
        "write to /tmp",
        "run a program",
    }, outcome


ASK = "import urllib.request as r; print(r.urlopen('http://127.0.0.1:{}/metrics').read().decode())"


def test_metrics_are_served_at_the_one_port_that_is_allowed(relay: Relay) -> None:
    """Another one takes the drop-in among the examples, and says so where that is enforced."""
    relay.configure(metrics={"listen": "127.0.0.1:9730"})
    relay.bed.run("systemctl", "reload", "gevproxy")
    python = "/usr/lib/gevproxy/bin/python"
    told = relay.bed.out(python, "-c", ASK.format(9730))
    assert f'gevproxy_jobs_received_total{{forward="127.0.0.1:{SOURCE}/checks"}}' in told
    assert "process_resident_memory_bytes" in told
    relay.configure(metrics={"listen": "127.0.0.1:9731"})
    if relay.bed.suite != "bookworm":  # whose systemd is built without BPF_FRAMEWORK
        assert relay.systemctl("reload") != 0
        assert "SocketBindAllow=" in relay.events("config_problem")[-1]["message"]
    example = "/usr/share/doc/gevproxy/examples/metrics.conf"
    dropin = "/etc/systemd/system/gevproxy.service.d/metrics.conf"
    relay.bed.run("install", "-D", "-m", "0644", example, dropin)
    try:
        relay.bed.run("systemctl", "daemon-reload")
        relay.bed.run("systemctl", "restart", "gevproxy")
        assert "gevproxy_build_info" in relay.bed.out(python, "-c", ASK.format(9731))
    finally:
        relay.bed.run("rm", dropin)
        relay.bed.run("systemctl", "daemon-reload")
        relay.configure()
        relay.bed.run("systemctl", "restart", "gevproxy")
