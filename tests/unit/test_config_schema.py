"""The schema is valid, explains everything, and its defaults are those of the program."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from jsonschema import Draft202012Validator

from gevproxy.config import ForwardConfig, TlsConfig, load, parse_address, schema_text
from gevproxy.config.build import _OPTIONS, _SETTINGS, _TLS
from gevproxy.config.checks import ASYNC_ONLY, SYNC_ONLY
from gevproxy.config.schema import NOTES, option_names

SCHEMA: dict[str, Any] = json.loads(schema_text())
DEFINITIONS: dict[str, Any] = SCHEMA["$defs"]

# What has no constant default: it must be given, or follows from other things.
WITHOUT_DEFAULT = {
    *("queues", "remote_queue", "dead_letters", "expect", "pattern", "replace", "set", "tls")
}

SOURCE, TARGET = "127.0.0.1:4730/a", "127.0.0.1:4730/b"


def resolved(schema: dict[str, Any]) -> dict[str, Any]:
    """Follow a reference into $defs."""
    reference: str = schema.get("$ref", "")
    return DEFINITIONS[reference.removeprefix("#/$defs/")] if reference else schema


def subschemas(schema: Any) -> Iterator[dict[str, Any]]:  # noqa: ANN401 - any JSON value
    """Yield every object in the schema that could be a schema."""
    if isinstance(schema, dict):
        yield schema
        for value in schema.values():
            yield from subschemas(value)
    elif isinstance(schema, list):
        for value in schema:
            yield from subschemas(value)


def properties() -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield name and schema of every property that a configuration may have."""
    for schema in subschemas(SCHEMA):
        if "additionalProperties" in schema:
            for name, value in schema["properties"].items():
                yield name, resolved(value)
            if isinstance(schema["additionalProperties"], dict):
                yield "*", resolved(schema["additionalProperties"])


def test_the_schema_is_valid_json_schema() -> None:
    Draft202012Validator.check_schema(SCHEMA)


@pytest.mark.parametrize(("name", "schema"), list(dict(properties()).items()))
def test_every_property_is_explained(name: str, schema: dict[str, Any]) -> None:
    assert schema["title"]
    assert schema["description"].endswith(".") or schema["description"].endswith(".)")
    assert "examples" in schema or "enum" in schema
    if name not in NOTES | WITHOUT_DEFAULT | {"*"}:
        assert "default" in schema


@pytest.mark.parametrize("schema", [SCHEMA, *DEFINITIONS.values(), *dict(properties()).values()])
def test_every_example_and_default_is_valid(schema: dict[str, Any]) -> None:
    validator = Draft202012Validator(schema | {"$defs": DEFINITIONS})
    for value in [
        *schema.get("examples", []),
        *([schema["default"]] if "default" in schema else []),
    ]:
        validator.validate(value)


def test_every_object_is_closed_and_takes_notes() -> None:
    objects = [schema for schema in subschemas(SCHEMA) if "object" in schema.get("type", ())]
    named = [schema for schema in objects if "title" in schema]
    assert len(named) >= 8
    for schema in named:
        assert "additionalProperties" in schema
        assert set(schema["properties"]) >= NOTES


def test_the_program_knows_the_options_of_the_schema_and_no_others() -> None:
    top, queue = option_names()
    groups = {
        "status/critical_after": "status",
        "status/certificate_days": "status",
        "metrics/listen": "metrics",
    }
    assert {groups.get(name, name) for name in _SETTINGS} == top - {
        "queues",
        "defaults",
        "servers",
        "status_queue",
    }
    assert set(_TLS) == set(DEFINITIONS["tls"]["properties"]) - NOTES
    assert set(_OPTIONS) == queue - {"remote_queue"}
    assert set(DEFINITIONS["forward"]["properties"]) - {"remote_queue"} == set(
        SCHEMA["properties"]["defaults"]["properties"]
    )
    assert set(SYNC_ONLY) | set(ASYNC_ONLY) < set(_OPTIONS)


def loaded(folder: Path, queue: dict[str, Any], **settings: Any) -> Any:  # noqa: ANN401 - JSON
    """Load a configuration with one forward that has the given options."""
    path = folder / "x.json"
    forward = {"remote_queue": TARGET} | queue
    path.write_text(json.dumps({"queues": {SOURCE: forward}} | settings), encoding="utf-8")
    return load([path], environ={})


@pytest.mark.parametrize("name", sorted(set(_OPTIONS) - WITHOUT_DEFAULT))
def test_an_options_default_is_what_happens_without_it(tmp_path: Path, name: str) -> None:
    """Given with its default and not given at all is the same; so it is for ForwardConfig."""
    kind: dict[str, Any] = {"async": False} if name in SYNC_ONLY else {}
    if name == "on_late":
        kind["max_age"] = 60  # without one it is a problem
    default = {name: DEFINITIONS[name]["default"]}
    without = loaded(tmp_path, kind)
    assert loaded(tmp_path, kind | default) == without
    assert loaded(tmp_path, kind, defaults=default) == without
    bare = ForwardConfig(source=parse_address(SOURCE), target=parse_address(TARGET))
    assert loaded(tmp_path, {}).forwards == (bare,)


def test_a_settings_default_is_what_happens_without_it(tmp_path: Path) -> None:
    defaults = {
        name: schema["default"]
        for name, schema in SCHEMA["properties"].items()
        if "default" in schema
    }
    status = SCHEMA["properties"]["status"]["properties"]
    defaults["status"] = {
        name: status[name]["default"] for name in ("critical_after", "certificate_days")
    }
    defaults["metrics"] = {"listen": None}
    assert len(defaults) == 10
    assert loaded(tmp_path, {}, **defaults) == loaded(tmp_path, {})


@pytest.mark.parametrize("name", _TLS)
def test_a_tls_options_default_is_what_happens_without_it(tmp_path: Path, name: str) -> None:
    def servers(tls: dict[str, Any]) -> dict[str, Any]:
        return {"127.0.0.1:4730": {"tls": tls}}

    default = {name: DEFINITIONS[name]["default"]}
    without = loaded(tmp_path, {}, servers=servers({}))
    assert loaded(tmp_path, {}, servers=servers(default)) == without
    assert list(without.servers.values()) == [TlsConfig()]


def test_the_patterns_for_editors_take_what_the_program_takes() -> None:
    address = Draft202012Validator(DEFINITIONS["remote_queue"])
    name = Draft202012Validator(SCHEMA["properties"]["queues"]["propertyNames"])
    for text in (SOURCE, "host/q", "[::1]:4730/a/b", "[fe80::1%eth0]/ü", "a_b.c-d.:1/x:y"):
        assert parse_address(text)
        assert address.is_valid(text)
        assert name.is_valid(text)
    for text in ("host:4730", "::1:4730/q", "host/a b"):
        assert not address.is_valid(text)
        assert not name.is_valid(text)


def test_the_schema_is_found_beside_the_package() -> None:
    top = Path(__file__).parents[2]
    assert schema_text() == (top / "schema" / "config.schema.json").read_text(encoding="utf-8")
