"""What the tests of the Ansible collection share: its tools, and where they find it."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.appliance.conftest import ROOT, skip
from tests.appliance.roots import HOME

COLLECTION = ROOT / "ansible"
BIN = Path(sys.executable).parent


@pytest.fixture(scope="session")
def environment(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Return an environment in which Ansible finds its tools and our collection."""
    if not (BIN / "molecule").exists():
        skip("the role needs molecule, ansible-core, ansible-lint and yamllint")
    collections = tmp_path_factory.mktemp("collections")
    (collections / "ansible_collections/gevproxy").mkdir(parents=True)
    (collections / "ansible_collections/gevproxy/relay").symlink_to(COLLECTION)
    return {
        **os.environ,
        "PATH": f"{BIN}:{os.environ['PATH']}",
        "ANSIBLE_COLLECTIONS_PATH": str(collections),
        "ANSIBLE_HOME": str(tmp_path_factory.mktemp("ansible")),
        "GEVPROXY_BEDS": str(HOME),
        # Molecule's lines are for a log, not for a screen.
        "NO_COLOR": "1",
    }


def run(*command: str | Path, folder: Path, environment: dict[str, str]) -> str:
    """Run a command that must succeed; return its output."""
    done = subprocess.run(
        [str(word) for word in command],
        cwd=folder,
        env=environment,
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        check=False,
    )
    assert done.returncode == 0, f"\n{done.stdout}"
    return done.stdout
