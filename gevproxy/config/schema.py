"""The JSON Schema that describes the configuration, and its verdict in words.

The schema has one copy, schema/config.schema.json at the top of the repository, and avoids oneOf
and anyOf: what is wrong is then always said at the smallest place. Messages name options and types
and never show a value that could be a key.
"""

import difflib
import json
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from jsonschema import Draft202012Validator, ValidationError

from gevproxy.config.source import Document, child_pointer
from gevproxy.errors import Problem

NOTES = frozenset({"$schema", "$comment", "description"})
"""Names that are allowed in every object, for people and editors."""

_FILE = "config.schema.json"

# The schema's names of types, and Python's types of what stands there instead.
_TYPE_NAMES = {
    "object": "an object {...}",
    "array": "a list [...]",
    "string": "a text in double quotes",
    "integer": "a whole number",
    "number": "a number",
    "boolean": "true or false",
    "null": "null",
}

_KINDS: dict[type, str] = {
    dict: "an object",
    list: "a list",
    str: "a text",
    int: "a number",
    float: "a number with a fraction",
    bool: "true or false",
    type(None): "null",
}


def schema_text() -> str:
    """Return the schema as shipped: inside a wheel, or beside the package in a checkout."""
    package = Path(__file__).parents[1]
    inside, beside = (folder / "schema" / _FILE for folder in (package, package.parent))
    return (inside if inside.is_file() else beside).read_text(encoding="utf-8")


@cache
def _schema() -> dict[str, Any]:
    schema: dict[str, Any] = json.loads(schema_text())
    return schema


def option_names() -> tuple[frozenset[str], frozenset[str]]:
    """Return the names of the top level's options and of a queue's options, without notes."""
    top = frozenset(_schema()["properties"])
    queue = frozenset(_schema()["$defs"]["forward"]["properties"])
    return top - NOTES, queue - NOTES


def schema_problems(document: Document) -> list[Problem]:
    """Return everything in which a document does not follow the schema, in the file's order."""
    errors = Draft202012Validator(_schema()).iter_errors(document.value)
    found = {
        Problem(document.file, document.lines[pointer], pointer, words)
        for error in errors
        for pointer, words in _in_words(_Fault.of(error))
    }
    return sorted(found)


@dataclass(frozen=True, slots=True)
class _Fault:
    """jsonschema's ValidationError, as far as it is of use: its own message quotes values.

    `keyword` of the schema is not fulfilled: it wants `wanted` of the `value` at `pointer`.
    It is None for a `false` schema. `schema` is the one that the keyword stands in.
    """

    pointer: str
    keyword: str | None
    wanted: Any
    value: Any
    schema: Any

    @classmethod
    def of(cls, error: ValidationError) -> "_Fault":
        pointer = ""
        for token in error.absolute_path:
            pointer = child_pointer(pointer, token)
        keyword = error.validator if isinstance(error.validator, str) else None
        return cls(pointer, keyword, error.validator_value, error.instance, error.schema)


def _in_words(fault: _Fault) -> Iterator[tuple[str, str]]:
    """Yield pointer and message; unknown options are one each, at the option."""
    if fault.keyword == "pattern":
        # Patterns are for editors: the logical checks are stricter and say what is wrong.
        return
    if fault.keyword == "additionalProperties":
        known = fault.schema["properties"]
        for name in fault.value:
            if name not in known:
                yield child_pointer(fault.pointer, name), _unknown_words(name, set(known) - NOTES)
    elif fault.keyword is None:
        # The only `false` schemas are those of pattern_or_set.
        yield fault.pointer, 'a rule has either "set", or "pattern" and "replace": write two rules'
    elif say := _WORDS.get(fault.keyword):
        yield fault.pointer, say(fault)
    else:
        yield fault.pointer, f"does not follow the schema ({fault.keyword})"


def _type_words(fault: _Fault) -> str:
    wanted = [fault.wanted] if isinstance(fault.wanted, str) else fault.wanted
    return (
        f"must be {_either(_TYPE_NAMES[name] for name in wanted)}, not {_KINDS[type(fault.value)]}"
    )


def _required_words(fault: _Fault) -> str:
    missing = (_quoted(name) for name in fault.wanted if name not in fault.value)
    return f"lacks {' and '.join(missing)}"


def _enum_words(fault: _Fault) -> str:
    near = _suggestion(fault.value, fault.wanted) if isinstance(fault.value, str) else ""
    return f"must be {_either(_quoted(value) for value in fault.wanted)}{near}"


_WORDS: dict[str, Callable[[_Fault], str]] = {
    "type": _type_words,
    "required": _required_words,
    "enum": _enum_words,
    "minimum": lambda fault: f"must be {fault.wanted} or more",
    "exclusiveMinimum": lambda fault: f"must be more than {fault.wanted}",
    "maximum": lambda fault: f"must be {fault.wanted} or less",
    "minLength": lambda _: "must not be empty",
    "minItems": lambda _: "must not be empty",
}


def _unknown_words(name: str, allowed: set[str]) -> str:
    """Say that an option is unknown, and which was meant or where it belongs."""
    top, queue = option_names()
    words = f'unknown option "{name}"'
    if near := _suggestion(name, allowed):
        return words + near
    if name in queue:
        return f'{words}: it belongs into a queue\'s object or into "defaults"'
    if name in top:
        return f"{words}: it belongs at the top of the file"
    if "/" in name and "queues" in allowed:
        return f'{words}: if this is a queue, it belongs into "queues"'
    return words


def _suggestion(name: str, allowed: Iterable[str]) -> str:
    """Return '; did you mean "..."?' for a near name, else "".

    Names are compared without case and separators, so that the Perl proxy's `remoteQueue`,
    `$statusqueue` and `logfile` find theirs.
    """
    plain = {_plain(candidate): candidate for candidate in sorted(allowed)}
    near = difflib.get_close_matches(_plain(name), plain, n=1, cutoff=0.75)
    return f"; did you mean {_quoted(plain[near[0]])}?" if near else ""


def _plain(name: str) -> str:
    return "".join(letter for letter in name.casefold() if letter.isalnum())


def _either(words: Iterable[str]) -> str:
    *most, last = words
    return f"{', '.join(most)} or {last}" if most else last


def _quoted(word: object) -> str:
    return f'"{word}"'
