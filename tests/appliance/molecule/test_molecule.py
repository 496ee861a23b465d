"""The Ansible role from a bare host to its removal, on Debian 12 and 13.

What is done and asserted stands in default/*.yml, in the order of molecule.yml's test_sequence.
"""

import shutil
from pathlib import Path

from tests.appliance.conftest import ROOT
from tests.appliance.molecule.conftest import run


def test_from_check_mode_to_removal(
    packages: dict[str, Path], wheelhouse: Path, environment: dict[str, str], tmp_path: Path
) -> None:
    for file in (*packages.values(), wheelhouse):
        shutil.copy(file, tmp_path)
    output = run(
        *("molecule", "test"),
        folder=ROOT / "tests/appliance",
        environment={**environment, "GEVPROXY_PACKAGES": str(tmp_path)},
    )
    # Molecule passes over a playbook that it does not find.
    assert "Missing playbook" not in output
