"""The role says the same everywhere: specification, defaults, README, schema and version."""

import json
import re
from pathlib import Path
from typing import Any

import pytest

from gevproxy import __version__

yaml = pytest.importorskip("yaml")

from tests.ansible import readme  # noqa: E402 - it needs yaml

ROOT = Path(__file__).parents[2]
DEFAULTS: dict[str, Any] = readme.read("defaults/main.yml")


def test_the_readme_has_every_variable_as_it_is_specified() -> None:
    """Where this fails: python -m tests.ansible.readme."""
    text = readme.README.read_text()
    assert text == readme.written(text)


def test_every_default_is_the_one_that_is_specified() -> None:
    specified = {
        name: each["default"] for name, each in readme.options().items() if "default" in each
    }
    assert specified == DEFAULTS


def test_every_option_of_the_program_is_a_variable() -> None:
    schema = json.loads((ROOT / "schema/config.schema.json").read_text())
    notes = {"$schema", "$comment", "description"}
    written = readme.read("vars/main.yml")["gevproxy__options"]
    assert set(written) == set(schema["properties"]) - notes
    for option, value in written.items():
        assert f"gevproxy_{option}" in value
        assert f"gevproxy_{option}" in readme.options()


def test_every_variable_that_is_used_is_specified() -> None:
    files = [*readme.ROLE.rglob("*.yml"), *readme.ROLE.rglob("*.j2")]
    used = {name for file in files for name in re.findall(r"\bgevproxy_(?!_)\w+", file.read_text())}
    # A template of rsyslog has a name too.
    assert used - {"gevproxy_record"} == set(readme.options())


def test_passwords_are_kept_out_of_the_output() -> None:
    secret = {name for name, each in readme.options().items() if each.get("no_log")}
    assert secret == {"gevproxy_keys", "gevproxy_credentials"}
    for task in readme.read("tasks/keys.yml"):
        if any(name in json.dumps(task) for name in secret):
            assert task["no_log"], task["name"]


def test_the_collection_has_the_version_of_the_program() -> None:
    galaxy = yaml.safe_load((readme.COLLECTION / "galaxy.yml").read_text())
    assert galaxy["version"] == DEFAULTS["gevproxy_version"] == __version__


def test_the_examples_set_no_variable_that_there_is_not() -> None:
    for file in (readme.COLLECTION / "examples").rglob("*_vars/*.yml"):
        text = file.read_text()
        names = set(re.findall(r"^#? ?(gevproxy_\w+):", text, re.MULTILINE))
        assert names <= set(readme.options()), file
        yaml.safe_load(text)
