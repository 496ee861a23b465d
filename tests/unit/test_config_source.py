"""The strict JSON reader against the standard library's: the same values, or a ConfigError."""

import contextlib
import json
import tempfile
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gevproxy.config.source import MAX_BYTES, MAX_DEPTH, parse, read
from gevproxy.errors import ConfigError

JSON_VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(exclude_categories=["Cs"])),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=20,
)

# Pieces that make texts which are nearly JSON, so that most errors come up.
PIECES = st.sampled_from(
    [
        *'{}[]:,"\\\n\t /#',
        *('"a"', '"b":', "1", "-0.5e3", "01", "1e999", "9" * 5000),
        *("true", "nul", "NaN", "-Infinity", "\\u12", '"\\ud800"', "\ufeff", "\xa0", "é"),
    ],
)

# Where this reader says no and json.loads yes: see parse().
OUR_RULES = ("no such number", "too large", "surrogate", "nested deeper")


def problem_of(text: str) -> tuple[int, str]:
    """Return line and message of the one problem of a text that is refused."""
    with pytest.raises(ConfigError) as caught:
        parse(text, "x.json")
    (problem,) = caught.value.problems
    return problem.line, problem.message


@settings(deadline=None)  # other work may slow the machine down
@given(JSON_VALUES, st.sampled_from([None, 0, 2]), st.booleans())
def test_what_json_writes_is_read_back(value: object, indent: int | None, ascii_only: bool) -> None:
    text = json.dumps(value, indent=indent, ensure_ascii=ascii_only)
    document = parse(text, "x.json")
    # repr tells 1 from 1.0 and True, and -0.0 from 0.0.
    assert repr(document.value) == repr(json.loads(text))
    assert not document.duplicates


@settings(deadline=None)  # other work may slow the machine down
@given(st.text() | st.lists(PIECES).map("".join))
def test_any_text_is_what_json_says_or_a_config_error(text: str) -> None:
    try:
        document = parse(text, "x.json")
    except ConfigError:
        return
    assert repr(document.value) == repr(json.loads(text))


@settings(deadline=None)  # other work may slow the machine down
@given(st.lists(PIECES).map("".join))
def test_what_is_refused_is_refused_by_json_too_or_by_one_of_our_rules(text: str) -> None:
    try:
        json.loads(text)
    except (ValueError, RecursionError):
        with pytest.raises(ConfigError):
            parse(text, "x.json")
        return
    with contextlib.suppress(ConfigError):
        parse(text, "x.json")
        return
    assert any(rule in problem_of(text)[1] for rule in OUR_RULES)


@settings(deadline=None)  # other work may slow the machine down
@given(st.binary() | st.text().map(str.encode))
def test_any_bytes_are_a_document_or_a_config_error(data: bytes) -> None:
    with tempfile.NamedTemporaryFile() as file:
        file.write(data)
        file.flush()
        try:
            document = read(Path(file.name))
        except ConfigError:
            return
    assert repr(document.value) == repr(json.loads(data.decode()))


def test_lines_are_those_of_names_and_elements() -> None:
    document = parse('{\n"a": {\n"b/c": [1,\n2]},\n"~": null}', "x.json")
    assert document.lines == {
        "": 1,
        "/a": 2,
        "/a/b~1c": 3,
        "/a/b~1c/0": 3,
        "/a/b~1c/1": 4,
        "/~0": 5,
    }


def test_a_name_that_stands_twice_is_found_once_each_and_the_last_value_counts() -> None:
    document = parse('{"a": 1,\n"b": {"c": 1, "c": 2},\n"a": 3}', "x.json")
    assert document.value == {"a": 3, "b": {"c": 2}}
    assert [(problem.line, problem.pointer) for problem in document.duplicates] == [
        (2, "/b/c"),
        (3, "/a"),
    ]


@pytest.mark.parametrize(
    ("text", "line", "message"),
    [
        ("{,}", 1, "column 2: a name in double quotes is missing"),
        ('{"a" 1}', 1, 'column 6: a ":" is missing'),
        ('{"a": }', 1, "column 7: this is no value"),
        ('{"a": hello}', 1, "column 7: this is no value"),
        ('{"a": 007}', 1, "column 7: this is no value"),
        ('{"a": None}', 1, "column 7: JSON writes null"),
        ('{"a": NaN}', 1, "column 7: JSON has no such number"),
        ('{"a": 1e999}', 1, "column 7: this number is too large"),
        ('{"a": "\\ud800"}', 1, "column 7: this text holds half of a surrogate pair"),
        ('{"a": "\\u12"}', 1, "after \\u there must be four"),
        ('{"a": "x\ny"}', 1, "a line break or tab stands inside a text"),
        ('{\n"a": "x}', 2, "column 6: this text has no closing quote"),
        ('{\n"a": [1,\n2,\n]}', 3, "column 2: this comma is one too many"),
        ("{} # end", 1, "column 4: JSON has no comments"),
        ("{} {}", 1, "the file goes on after its last closing bracket"),
        ('{\n"a": [\n', 3, 'the file ends before the "[" of line 2 is closed'),
        ('{"a"', 1, "the file ends too early"),
        (" \n ", 0, "the file is empty"),
    ],
)
def test_a_syntax_error_says_where_and_what_to_do(text: str, line: int, message: str) -> None:
    found_line, found_message = problem_of(text)
    assert found_line == line
    assert message in found_message


def test_the_deepest_nesting_that_is_read() -> None:
    deep = "[" * MAX_DEPTH + "]" * MAX_DEPTH
    assert repr(parse(deep, "x.json").value) == deep
    for text in (f"[{deep}]", "[" * 100_000, '{"a":' * 100_000):
        assert "nested deeper" in problem_of(text)[1]


def test_a_file_that_cannot_be_read(tmp_path: Path) -> None:
    for path, reason in [
        (tmp_path / "missing.json", "No such file"),
        (tmp_path, "Is a directory"),
        (Path("a\0b"), "embedded null"),
    ]:
        with pytest.raises(ConfigError, match=reason):
            read(path)


def test_a_file_that_is_too_large(tmp_path: Path) -> None:
    large = tmp_path / "large.json"
    with large.open("wb") as stream:
        stream.truncate(MAX_BYTES + 1)
    with pytest.raises(ConfigError, match="is larger than"):
        read(large)


def test_a_relative_path_starts_at_the_folder_of_its_file() -> None:
    node = parse("{}", "conf.d/x.json").root
    assert node.path("keys/a") == Path("conf.d/keys/a")
    assert node.path("/etc/a") == Path("/etc/a")
