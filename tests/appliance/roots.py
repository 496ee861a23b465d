"""Root file systems of test beds: a minimal Debian of each release, made once and kept.

In $GEVPROXY_BEDS (default ~/.cache/gevproxy-beds). They hold this machine's apt and pip set-up and
are never shipped. Knows nothing of beds, of gevproxy or of pytest.
"""

import fcntl
import hashlib
import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

SUITES: Final = ("bookworm", "trixie")

HOST_PACKAGES: Final = (
    "iproute2",
    "iptables",
    "lintian",
    "mmdebstrap",
    "openssh-client",
    "systemd-container",
    "util-linux",
)
"""What this machine needs; their programs are in NEEDED."""

NEEDED: Final = (
    "ip",
    "iptables",
    "mmdebstrap",
    "nsenter",
    "ssh-keygen",
    "systemd-nspawn",
    "lintian",
)

GUEST_PACKAGES: Final = (
    # what a minimal server has, and what Ansible and its pip module want
    *("systemd", "systemd-sysv", "dbus", "libnss-systemd", "libpam-systemd", "openssh-server"),
    *("ca-certificates", "iproute2", "iptables", "iputils-ping", "less", "procps", "sudo"),
    *("python3", "python3-venv", "python3-apt", "python3-packaging"),
    # what shows that manual pages and completions are of use
    *("man-db", "zsh", "fish", "jq"),
    # the peers of a relay
    *("gearman-job-server", "gearman-tools"),
)

HOME: Final = Path(os.environ.get("GEVPROXY_BEDS") or Path.home() / ".cache" / "gevproxy-beds")


class BedError(Exception):
    """A bed cannot be made, or a command in it failed; the text has its output."""


def host(*command: str | Path, check: bool = True, **options: object) -> str:
    """Run a command on this machine; return its output."""
    done = subprocess.run(  # type: ignore[call-overload]
        [str(word) for word in command], text=True, capture_output=True, check=False, **options
    )
    if check and done.returncode:
        raise BedError(f"{' '.join(map(str, command))}: {done.stdout}{done.stderr}")
    return str(done.stdout)


@contextmanager
def locked(what: str) -> Iterator[None]:
    """Keep all other processes that use beds out of the same thing meanwhile."""
    HOME.mkdir(parents=True, exist_ok=True)
    with (HOME / f"{what}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def build(suite: str) -> Path:
    """Return the root file system of a suite, made where it is missing or out of date."""
    key = hashlib.sha256(" ".join([suite, *GUEST_PACKAGES]).encode()).hexdigest()[:8]
    root = HOME / "roots" / f"{suite}-{key}"
    identity = HOME / "id"
    with locked("id"):
        if not identity.exists():
            host("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", identity)
    with locked(suite):  # two builds of one would be in each other's way
        if not root.is_dir():
            _build(suite, root)
    return root


def _build(suite: str, root: Path) -> None:
    new = root.with_suffix(".new")
    shutil.rmtree(new, ignore_errors=True)
    root.parent.mkdir(parents=True, exist_ok=True)
    host("mmdebstrap", *_options(), "--format=directory", suite, new, *_sources(suite))
    new.rename(root)
    mounts = Path("/proc/self/mounts").read_text()
    for old in root.parent.glob(f"{suite}-*"):
        if old != root and str(old) not in mounts:
            shutil.rmtree(old)


def _options() -> list[str]:
    hooks = [
        'rm -f "$1/etc/hostname" "$1"/etc/ssh/ssh_host_*',
        'mkdir -m 0700 -p "$1/root/.ssh"',
        f"upload {HOME / 'id.pub'} /root/.ssh/authorized_keys",
        'chroot "$1" ssh-keygen -A -q',
        # filled in at the first boot, as on a machine that was installed from an image
        'echo uninitialized > "$1/etc/machine-id"',
    ]
    # The registries of this machine may have certificates and an index of their own.
    files = ("/etc/ssl/certs/ca-certificates.crt", "/etc/pip.conf")
    hooks += [f"upload {file} {file}" for file in files if Path(file).exists()]
    return [
        "--quiet",
        "--variant=apt",
        f"--include={','.join(GUEST_PACKAGES)}",
        '--aptopt=APT::Install-Recommends "false"',
        '--aptopt=Acquire::Check-Valid-Until "false"',
        '--aptopt=Acquire::Retries "3"',
        *(f"--customize-hook={hook}" for hook in hooks),
    ]


def _sources(suite: str) -> list[Path]:
    """Return where packages come from: as on this machine, else mmdebstrap's own default."""
    release = Path("/etc/os-release").read_text()
    here = next((name for name in SUITES if f"VERSION_CODENAME={name}\n" in release), None)
    ours = Path("/etc/apt/sources.list.d/debian.sources")
    if here is None or not ours.exists():
        return []
    sources = HOME / f"{suite}.sources"
    sources.write_text(ours.read_text().replace(here, suite))
    return [sources]
