"""Test beds: a Debian with systemd as PID 1, booted in a second on a throw-away file system.

A bed is a systemd-nspawn container over an overlay of a root file system (roots.py). Needs
root, but neither systemd nor a network on this machine. By hand: `python -m tests.appliance`.

`net`: none is a loopback interface; veth adds eth0 with an address that this machine reaches (by
ssh with the key in $GEVPROXY_BEDS/id, for one); nat adds the way out, as this machine has it.

Not enforced in here, silently: MemoryMax=, TasksMax=, CPUQuota=, LimitNOFILE= above 20000.
Knows nothing of gevproxy or pytest.
"""

import json
import os
import shutil
import signal
import subprocess
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal, Self

from tests.appliance.roots import HOME, SUITES, BedError, build, host, locked
from tests.kit.eventually import eventually

Net = Literal["none", "veth", "nat"]

NETWORK: Final = "10.213"
"""The first half of the beds' addresses; each bed has a /24 of its own."""

ENVIRONMENT: Final = {
    "PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
    "HOME": "/root",
    "LANG": "C.UTF-8",
    "DEBIAN_FRONTEND": "noninteractive",
}

CHILDREN: Final[dict[int, "subprocess.Popen[bytes]"]] = {}
"""The nspawns that this process has started, to be waited for in the end."""

BOOT_SECONDS: Final = 60.0
HALT_SECONDS: Final = 60.0
"""Deadlines, not delays: under a second, and what the slowest service needs to stop."""


@dataclass(frozen=True, slots=True)
class Bed:
    """A bed by its name. All facts are on the disk, so that another process can go on with it."""

    name: str

    @classmethod
    def up(cls, name: str, suite: str = SUITES[0], net: Net = "none", *, owner: int = 0) -> Self:
        """Make and boot a bed; a bed of that name is taken down before.

        `owner` is the process without which it is of no use: see `prune`.
        """
        bed = cls(name)
        bed.down()
        lower = build(suite)
        for folder in ("upper", "work", "root"):
            (bed.folder / folder).mkdir(parents=True)
        bed._save(suite=suite, net=net, owner=owner)
        layers = f"lowerdir={lower},upperdir={bed.folder / 'upper'},workdir={bed.folder / 'work'}"
        host("mount", "-t", "overlay", "overlay", "-o", layers, bed.root)
        bed.write("etc/hostname", f"{name}\n")
        # Without its own name here, looking it up waits for a name server that is not there.
        hosts = f"127.0.0.1 localhost\n::1 localhost\n127.0.1.1 {name}\n"
        resolv = ""
        if net == "nat":
            hosts += Path("/etc/hosts").read_text()
            resolv = Path("/etc/resolv.conf").read_text()
        bed.write("etc/hosts", hosts)
        (bed.root / "etc/resolv.conf").unlink(missing_ok=True)
        bed.write("etc/resolv.conf", resolv)
        if net != "none":
            bed._connect(to_outside=net == "nat")
        bed.boot()
        return bed

    @property
    def folder(self) -> Path:
        """The folder of everything that belongs to this bed."""
        return HOME / "beds" / self.name

    @property
    def root(self) -> Path:
        """Its file system as seen from here, without what is mounted inside (/run, /tmp)."""
        return self.folder / "root"

    @property
    def facts(self) -> dict[str, str | int]:
        """What was noted about it: suite, net, owner, ip, veth, nspawn, leader."""
        try:
            facts: dict[str, str | int] = json.loads((self.folder / "facts.json").read_text())
        except FileNotFoundError:
            return {}
        return facts

    @property
    def suite(self) -> str:
        """The Debian that runs in it."""
        return str(self.facts["suite"])

    @property
    def ip(self) -> str:
        """Its address, where it has a veth."""
        return str(self.facts["ip"])

    @property
    def leader(self) -> int:
        """The process that is PID 1 in it."""
        return int(self.facts["leader"])

    def _save(self, **facts: str | int) -> None:
        text = json.dumps({**self.facts, **facts})
        (self.folder / "facts.json").write_text(text)

    def write(self, path: str, text: str, mode: int = 0o644) -> None:
        """Write a file as root, with the folders above it."""
        file = self.root / path.lstrip("/")
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
        file.chmod(mode)

    # Running commands

    def start(self, *command: str, **options: object) -> "subprocess.Popen[str]":
        """Start a command in it, in this machine's cgroup."""
        words = [*_inside(self.leader), *command]
        return subprocess.Popen(  # type: ignore[call-overload, no-any-return]
            words, env=ENVIRONMENT, text=True, **options
        )

    def run(
        self, *command: str, check: bool = True, timeout: float = 120.0, stdin: str = ""
    ) -> "subprocess.CompletedProcess[str]":
        """Run a command in it, in this machine's cgroup; BedError where it fails."""
        done = subprocess.run(
            [*_inside(self.leader), *command],
            env=ENVIRONMENT,
            input=stdin,
            text=True,
            capture_output=True,
            check=False,
            timeout=timeout,
        )
        if check and done.returncode:
            what = f"{self.name}: {' '.join(command)}: exit code {done.returncode}"
            raise BedError(f"{what}\n{done.stdout}{done.stderr}")
        return done

    def out(self, *command: str) -> str:
        """Run a command in it; return what it prints, without the last line end."""
        return self.run(*command).stdout.rstrip("\n")

    # Boot and halt

    def boot(self) -> float:
        """Boot, wait until systemd has started everything, and return the seconds that took.

        A failed unit is not our business: look at `systemctl is-system-running`.
        """
        began = time.monotonic()
        # nspawn keeps its notes there and refuses to clean up on a file system of a disk.
        notes = Path("/run/systemd/nspawn")
        notes.mkdir(parents=True, exist_ok=True)
        if subprocess.run(["mountpoint", "-q", notes], check=False).returncode:
            host("mount", "-t", "tmpfs", "tmpfs", notes)
        network = ["--private-network"]
        if self.facts["net"] != "none":
            # CAP_NET_ADMIN is dropped here, unlike with --private-network, and PrivateNetwork=
            # inside needs it.
            namespace = f"/run/netns/{self._namespace}"
            network = [f"--network-namespace-path={namespace}", "--capability=CAP_NET_ADMIN"]
        # Without a cgroup of its own every nspawn would land in the same one.
        for cgroup in self._cgroups():
            cgroup.mkdir(exist_ok=True)

        def enter_cgroup() -> None:
            for cgroup in self._cgroups():
                (cgroup / "cgroup.procs").write_text(str(os.getpid()))

        with (self.folder / "console.log").open("ab") as console:
            nspawn = subprocess.Popen(
                [
                    *("systemd-nspawn", "--quiet", "--boot", "--register=no", "--keep-unit"),
                    *("--link-journal=no", "--resolv-conf=off", "--timezone=off"),
                    *("--console=pipe", "--system-call-filter=bpf"),
                    f"--directory={self.root}",
                    f"--machine={self.name}",
                    *network,
                ],
                stdin=subprocess.DEVNULL,
                stdout=console,
                stderr=console,
                start_new_session=True,
                env={
                    **os.environ,
                    "SYSTEMD_NSPAWN_UNIFIED_HIERARCHY": "1",
                    "SYSTEMD_NSPAWN_LOCK": "0",
                },
                preexec_fn=enter_cgroup,  # noqa: PLW1509 - one thread, and nothing else can do it
            )
        CHILDREN[nspawn.pid] = nspawn
        self._save(nspawn=nspawn.pid)

        def leader() -> int:
            if nspawn.poll() is not None:
                raise BedError(f"nspawn ended: {(self.folder / 'console.log').read_text()}")
            return _systemd_below(nspawn.pid)

        self._save(leader=eventually(leader, BOOT_SECONDS, what=f"{self.name} has a PID 1"))

        def up() -> bool:
            state = self.run("systemctl", "is-system-running", check=False).stdout.strip()
            return state in ("running", "degraded")

        eventually(up, BOOT_SECONDS, what=f"{self.name} is up")
        return time.monotonic() - began

    def halt(self, *, power_cut: bool = False) -> None:
        """Shut down in order, or as when the power goes; the file system stays."""
        leader, nspawn = (int(self.facts.get(name, 0)) for name in ("leader", "nspawn"))
        if power_cut:
            _kill(nspawn, signal.SIGKILL)
            _kill(leader, signal.SIGKILL)
        else:
            _kill(leader, signal.SIGRTMIN + 4)  # systemd: poweroff.target
            _wait_for_end(leader, HALT_SECONDS)
        for process in (leader, nspawn):
            _wait_for_end(process, 5.0)
            _kill(process, signal.SIGKILL)
        if child := CHILDREN.pop(nspawn, None):
            child.wait()

    def reboot(self, *, power_cut: bool = False) -> float:
        """Halt and boot; return the seconds of the boot."""
        self.halt(power_cut=power_cut)
        return self.boot()

    def down(self) -> None:
        """Throw it away, whatever state it is in."""
        facts = self.facts
        if not self.folder.exists():
            return
        self.halt(power_cut=True)
        if "veth" in facts:
            host("ip", "link", "del", str(facts["veth"]), check=False)
            host("ip", "netns", "del", self._namespace, check=False)
        if subprocess.run(["mountpoint", "-q", self.root], check=False).returncode == 0:
            host("umount", "--lazy", self.root)
        for cgroup in self._cgroups():
            for folder in sorted(cgroup.rglob("*/"), reverse=True):
                with suppress(OSError):
                    folder.rmdir()
            with suppress(OSError):
                cgroup.rmdir()
        shutil.rmtree(self.folder)

    # Network

    @property
    def _namespace(self) -> str:
        return f"bed-{self.name}"

    def _connect(self, *, to_outside: bool) -> None:
        """Give it eth0, joined to this machine by a veth; `to_outside` lets it through."""
        for number in range(1, 255):
            here, inside = f"vb{number}", f"vp{number}"
            add = ["ip", "link", "add", here, "type", "veth", "peer", "name", inside]
            if subprocess.run(add, capture_output=True, check=False).returncode == 0:
                break  # else another bed has that number
        else:
            raise BedError("254 beds have a network already, or none can be made")
        self._save(veth=here, ip=f"{NETWORK}.{number}.2")
        namespace = self._namespace
        host("ip", "netns", "add", namespace)
        host("ip", "link", "set", inside, "netns", namespace, "name", "eth0")
        host("ip", "addr", "add", f"{NETWORK}.{number}.1/24", "dev", here)
        host("ip", "link", "set", here, "up")
        host("ip", "-n", namespace, "link", "set", "lo", "up")
        host("ip", "-n", namespace, "addr", "add", f"{self.ip}/24", "dev", "eth0")
        host("ip", "-n", namespace, "link", "set", "eth0", "up")
        host("ip", "-n", namespace, "route", "add", "default", "via", f"{NETWORK}.{number}.1")
        if to_outside:
            Path("/proc/sys/net/ipv4/ip_forward").write_text("1")
            beds = f"{NETWORK}.0.0/16"
            rule = ["POSTROUTING", "-s", beds, "!", "-d", beds, "-j", "MASQUERADE"]
            table = ["iptables", "-w", "-t", "nat"]
            if subprocess.run([*table, "-C", *rule], capture_output=True, check=False).returncode:
                host(*table, "-A", *rule)

    def _cgroups(self) -> list[Path]:
        """Return its cgroups: one, or two where v1 and v2 are mounted side by side."""
        top = Path("/sys/fs/cgroup")
        mixed = [top / "systemd", top / "unified"]
        return [each / f"bed-{self.name}" for each in (mixed if mixed[1].is_dir() else [top])]


def prune() -> None:
    """Take down every bed whose owner has gone."""
    with locked("prune"):
        for folder in (HOME / "beds").glob("*"):
            bed = Bed(folder.name)
            owner = int(bed.facts.get("owner", 0))
            if owner and not _alive(owner):
                bed.down()


def _inside(leader: int) -> list[str]:
    return ["nsenter", "--all", "--target", str(leader), "--"]


def _alive(process: int) -> bool:
    """Whether a process runs; a zombie does not, and PID 1 may be slow to reap."""
    try:
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


def _wait_for_end(process: int, seconds: float) -> None:
    """Wait as long as that; whoever asks has a harder way if it is not enough."""
    with suppress(AssertionError):
        eventually(lambda: not _alive(process), seconds)


def _kill(process: int, number: int) -> None:
    if process and _alive(process):
        os.kill(process, number)


def _systemd_below(process: int) -> int:
    """Return the child that is systemd already and not nspawn on its way there, else 0."""
    for child in Path(f"/proc/{process}/task/{process}/children").read_text().split():
        with suppress(FileNotFoundError):
            if Path(f"/proc/{child}/comm").read_text().strip() == "systemd":
                return int(child)
    return 0
