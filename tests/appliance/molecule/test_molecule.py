"""The Ansible role from a bare host to its removal, on Debian 12 and 13.

What is done and asserted stands in default/*.yml, in the order of molecule.yml's test_sequence.
$GEVPROXY_MATRIX=short makes it shorter.
"""

import os
import re
import shutil
from collections.abc import Callable
from pathlib import Path

from tests.appliance.bed import Bed
from tests.appliance.conftest import MEASURED, ROOT
from tests.appliance.molecule.conftest import run

RUNS = ("check mode", "the playbook's first run", "the playbook's second run")
"""The first playbooks that a relay meets after prepare.yml, by the sequence in molecule.yml."""


def test_from_check_mode_to_removal(
    packages: dict[str, Path],
    wheelhouse: Path,
    environment: dict[str, str],
    tmp_path: Path,
    record_property: Callable[[str, object], None],
) -> None:
    for file in (*packages.values(), wheelhouse):
        shutil.copy(file, tmp_path)
    if os.environ.get("GEVPROXY_MATRIX") == "short":
        environment = {**environment, "WHEELS_GROUP": "idle"}
    try:
        output = run(
            *("molecule", "test"),
            folder=ROOT / "tests/appliance",
            environment={**environment, "GEVPROXY_PACKAGES": str(tmp_path)},
        )
    finally:
        for name in ("relay12", "relay13", "relay-wheels", "site-b"):
            Bed(name).down()
    # Molecule passes over a playbook that it does not find.
    assert "Missing playbook" not in output
    for host in ("relay12", "relay13"):
        runs = re.findall(rf"^{host} +: (ok=\d+ +changed=\d+)", output, re.MULTILINE)
        for run_of, figures in zip(RUNS, runs[1:], strict=False):
            record_property(MEASURED, f"{host}: {run_of}: {figures}")
