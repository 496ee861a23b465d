"""The Ansible collection as its linters see it, with everything switched on."""

from pathlib import Path

import pytest

from tests.appliance.molecule.conftest import COLLECTION, run


@pytest.mark.parametrize(
    "command", [("yamllint", "--strict", "."), ("ansible-lint", "--offline")], ids=" ".join
)
def test_the_collection_is_clean(command: tuple[str, ...], environment: dict[str, str]) -> None:
    run(*command, folder=COLLECTION, environment=environment)


def test_the_scenario_is_clean(environment: dict[str, str]) -> None:
    command = ("yamllint", "--strict", "--config-file", COLLECTION / ".yamllint", ".")
    run(*command, folder=Path(__file__).parent, environment=environment)
