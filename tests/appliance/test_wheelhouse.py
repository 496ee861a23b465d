"""The wheelhouse: its README, followed word for word on a host without an index."""

import re
import subprocess
from pathlib import Path

from tests.appliance.conftest import Relay, build_wheelhouse


def test_its_readme_makes_a_running_relay(fresh: Relay, wheelhouse: Path) -> None:
    """The bed has no network at all: everything comes out of the tarball."""
    bed = fresh.bed
    subprocess.run(["tar", "-xzf", wheelhouse, "-C", bed.root / "root"], check=True)
    folder = f"/root/{wheelhouse.name.removesuffix('.tar.gz')}"
    install, start = re.findall(
        r"^```sh\n(.*?)^```", bed.out("cat", f"{folder}/README.md") + "\n", re.MULTILINE | re.DOTALL
    )
    bed.run("bash", "-euxc", f"cd {folder}; {install}")
    fresh.configure()
    bed.run("bash", "-euxc", start)
    fresh.wait_until_running()
    fresh.passes()
    bed.run("systemctl", "reload", "gevproxy")
    assert bed.run("systemd-analyze", "verify", "gevproxy.service").stderr == ""


def test_its_readme_upgrades_it(fresh: Relay, wheelhouse: Path) -> None:
    """The same again: what the README says about an upgrade."""
    folder = f"/root/{wheelhouse.name.removesuffix('.tar.gz')}"
    upgrade = (
        "/opt/gevproxy/bin/pip install --upgrade --no-index --find-links wheels 'gevproxy[metrics]'"
    )
    fresh.bed.run("bash", "-euxc", f"cd {folder}; {upgrade}")
    fresh.bed.run("systemctl", "restart", "gevproxy")
    fresh.passes(prefix="upgraded")


def test_the_same_tree_gives_the_same_bytes(wheelhouse: Path, tmp_path: Path) -> None:
    assert build_wheelhouse(tmp_path).read_bytes() == wheelhouse.read_bytes()
