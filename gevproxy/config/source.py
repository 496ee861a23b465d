"""Reading one JSON file strictly, and remembering the line on which everything stands.

`json` forgets lines and takes duplicate keys, NaN and any depth; this reader does not. It knows
nothing of what the configuration means. Its messages never quote a file's text beyond the names
of keys: what is misplaced may be a password.
"""

import codecs
import math
import re
from bisect import bisect_right
from collections.abc import Iterator
from dataclasses import dataclass, field
from json import JSONDecodeError, JSONDecoder
from pathlib import Path
from typing import Any, NoReturn

from gevproxy.errors import ConfigError, Problem

MAX_BYTES = 16 * 1024 * 1024
"""Of one file: forty thousand forwards fit; whatever is larger was not meant."""

MAX_DEPTH = 32
"""Of objects and lists in one another; the schema needs six. Python itself gives up at 1000."""

_SPACE = re.compile(r"[ \t\r\n]*")
_NUMBER = re.compile(r"(-?(?:0|[1-9][0-9]*))(\.[0-9]+)?([eE][-+]?[0-9]+)?")
_WORD = re.compile(r"[-+.\w]+")
_SURROGATE = re.compile("[\ud800-\udfff]")
_LITERALS = {"true": True, "false": False, "null": None}

_DECODER = JSONDecoder()

# What people write where a value should begin, and what they should have written.
_NO_NUMBER = "JSON has no such number"
_WORD_HINTS = {
    "True": "JSON writes true",
    "False": "JSON writes false",
    "None": "JSON writes null",
    "NaN": _NO_NUMBER,
    "Infinity": _NO_NUMBER,
    "-Infinity": _NO_NUMBER,
}
_COMMENT_HINT = 'JSON has no comments: use a "$comment" option'
_CHARACTER_HINTS = {
    "'": 'texts and names stand in double quotes ("), not in single ones',
    "#": _COMMENT_HINT,
    "/": _COMMENT_HINT,
}
_STRING_HINTS = {
    "Unterminated string": "this text has no closing quote",
    "Invalid control character": "a line break or tab stands inside a text: write \\n or \\t",
    "Invalid \\u": "after \\u there must be four hexadecimal digits",
    "Invalid \\escape": 'a backslash is written twice in JSON, as in "\\\\d+"',
}


@dataclass(frozen=True, slots=True)
class Document:
    """One file as read. `file` is the path as the user gave it.

    `lines` maps the JSON pointer of everything in `value` to its line, which for a member of an
    object is the line of its name. `duplicates` are the names that stand twice in one object; as
    with `json`, the last one's value is in `value`.
    """

    file: str
    value: Any
    lines: dict[str, int]
    duplicates: tuple[Problem, ...]

    @property
    def root(self) -> "Node":
        """The whole document as a node."""
        return Node(self, "", self.value)


@dataclass(frozen=True, slots=True)
class Node:
    """A value in a document, with the place where it is written."""

    document: Document = field(repr=False)
    pointer: str
    value: Any = field(repr=False)

    def __str__(self) -> str:
        return f"{self.document.file}:{self.document.lines[self.pointer]}"

    def __iter__(self) -> Iterator[tuple[str | int, "Node"]]:
        """Yield the members of an object or a list with their names or positions."""
        members = self.value.items() if isinstance(self.value, dict) else enumerate(self.value)
        for token, value in members:
            yield token, Node(self.document, child_pointer(self.pointer, token), value)

    def problem(self, message: str) -> Problem:
        """Say what is wrong with this value."""
        line = self.document.lines[self.pointer]
        return Problem(self.document.file, line, self.pointer, message)

    def path(self, text: str) -> Path:
        """Return a path that is written here: a relative one starts at this file's folder."""
        return Path(self.document.file).parent / text


def child_pointer(pointer: str, token: str | int) -> str:
    """Return the JSON pointer (RFC 6901) of a member."""
    return f"{pointer}/{str(token).replace('~', '~0').replace('/', '~1')}"


def read(path: Path) -> Document:
    """Read a file. Raises ConfigError when it cannot be read or is not strict JSON in UTF-8."""
    file = str(path)
    try:
        with path.open("rb") as stream:
            data = stream.read(MAX_BYTES + 1)
    except (OSError, ValueError) as error:  # ValueError: a NUL in the path
        reason = error.strerror if isinstance(error, OSError) else None
        raise _file_error(file, f"cannot be read: {reason or error}") from error
    if len(data) > MAX_BYTES:
        raise _file_error(file, f"is larger than {MAX_BYTES} bytes: this is no configuration")
    if data.startswith(codecs.BOM_UTF8):
        raise _file_error(file, "begins with a byte order mark: save it as UTF-8 without BOM")
    try:
        text = data.decode()
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise _file_error(file, "is not UTF-8 here: save it as UTF-8", line) from error
    return parse(text, file)


def parse(text: str, file: str) -> Document:
    """Parse a JSON text; `file` is for the messages.

    Gives what `json.loads` gives. Raises ConfigError on a syntax error and on what JSON leaves
    open: an infinite or not a number, half of a surrogate pair, nesting deeper than MAX_DEPTH.
    """
    return _Parser(text, file).document()


def _file_error(file: str, message: str, line: int = 0) -> ConfigError:
    return ConfigError((Problem(file, line, "", f"the file {message}"),))


class _Parser:
    """A recursive descent over `text`; `at` is the offset of the next character."""

    def __init__(self, text: str, file: str) -> None:
        self.text = text
        self.file = file
        self.at = 0
        self.line_starts = [0, *(match.end() for match in re.finditer("\n", text))]
        self.lines: dict[str, int] = {}
        self.duplicates: list[Problem] = []

    def document(self) -> Document:
        """Parse the whole text. Raises ConfigError."""
        if not self.text.strip():
            raise _file_error(self.file, "is empty: it must hold a JSON object")
        self.skip_space()
        self.lines[""] = self.line(self.at)
        value = self.value("", 1)
        self.skip_space()
        if self.at < len(self.text):
            self.fail(self.at, self.hint("the file goes on after its last closing bracket"))
        return Document(self.file, value, self.lines, tuple(self.duplicates))

    def value(self, pointer: str, depth: int) -> Any:  # noqa: ANN401 - any JSON value
        """Parse the value that begins at `at`."""
        if depth > MAX_DEPTH:
            self.fail(self.at, f"objects and lists are nested deeper than {MAX_DEPTH}")
        match self.peek():
            case "{":
                return self.object(pointer, depth)
            case "[":
                return self.array(pointer, depth)
            case '"':
                return self.string()
        return self.scalar()

    def object(self, pointer: str, depth: int) -> dict[str, Any]:
        """Parse an object; a name that stands twice is remembered as a problem."""
        opening, result, first_lines = self.at, {}, dict[str, int]()
        while self.next_member(opening, "}", first=not first_lines):
            if self.peek() != '"':
                self.fail(self.at, self.hint('a name in double quotes is missing before the ":"'))
            line = self.line(self.at)
            name = self.string()
            child = child_pointer(pointer, name)
            if name in first_lines:
                message = f'"{name}" stands here twice: first in line {first_lines[name]}'
                self.duplicates.append(Problem(self.file, line, child, message))
            first_lines.setdefault(name, line)
            self.lines[child] = line
            self.skip_space()
            if self.peek() != ":":
                self.fail(self.at, self.hint('a ":" is missing after the name'))
            self.at += 1
            self.skip_space()
            result[name] = self.value(child, depth + 1)
        return result

    def array(self, pointer: str, depth: int) -> list[Any]:
        """Parse a list."""
        opening, result = self.at, list[Any]()
        while self.next_member(opening, "]", first=not result):
            child = child_pointer(pointer, len(result))
            self.lines[child] = self.line(self.at)
            result.append(self.value(child, depth + 1))
        return result

    def next_member(self, opening: int, closing: str, *, first: bool) -> bool:
        """Step over a bracket or comma to the next member; False when `closing` was there."""
        if first:
            self.at += 1
        self.skip_space()
        if self.peek() == closing:
            self.at += 1
            return False
        if not first:
            if self.peek() != ",":
                self.fail_unclosed(opening, "a comma or a closing bracket is missing before this")
            comma = self.at
            self.at += 1
            self.skip_space()
            if self.peek() in ("}", "]"):
                self.fail(comma, "this comma is one too many: nothing follows it")
        if not self.peek():
            self.fail_unclosed(opening, "")
        return True

    def string(self) -> str:
        """Parse the text that begins at `at` with its quote."""
        start = self.at
        text: str
        try:
            text, self.at = _DECODER.raw_decode(self.text, start)
        except JSONDecodeError as error:
            hints = (hint for begin, hint in _STRING_HINTS.items() if error.msg.startswith(begin))
            self.fail(error.pos, next(hints, "this text is not valid JSON"))
        if _SURROGATE.search(text):
            self.fail(start, "this text holds half of a surrogate pair, which is no character")
        return text

    def scalar(self) -> Any:  # noqa: ANN401 - true, false, null or a number
        """Parse what is neither text nor bracketed."""
        found = _WORD.match(self.text, self.at)
        word = found.group() if found else ""
        if word in _LITERALS:
            value: Any = _LITERALS[word]
        elif number := _NUMBER.fullmatch(word):
            value = self.number(number)
        else:
            self.fail(
                self.at,
                self.hint(_WORD_HINTS.get(word) or "this is no value: a text stands in quotes"),
            )
        self.at += len(word)
        return value

    def number(self, match: re.Match[str]) -> int | float:
        """Return a number's value."""
        integer, fraction, exponent = match.groups()
        try:
            value = float(match.group()) if fraction or exponent else int(integer)
        except ValueError:  # int() takes some thousands of digits, no more
            value = math.inf
        if value in (math.inf, -math.inf):
            self.fail(self.at, "this number is too large")
        return value

    def skip_space(self) -> None:
        """Move to the next character that is no white space."""
        if match := _SPACE.match(self.text, self.at):
            self.at = match.end()

    def peek(self) -> str:
        """Return the next character, "" at the end."""
        return self.text[self.at : self.at + 1]

    def hint(self, otherwise: str) -> str:
        """Say what is usually meant by the next character, or `otherwise`."""
        if not self.peek():
            return "the file ends too early"
        return _CHARACTER_HINTS.get(self.peek(), otherwise)

    def line(self, offset: int) -> int:
        """Return the line of an offset, from 1."""
        return bisect_right(self.line_starts, offset)

    def fail_unclosed(self, opening: int, otherwise: str) -> NoReturn:
        """Fail where a member of the bracket at `opening` should go on or end."""
        if not self.peek():
            bracket, line = self.text[opening], self.line(opening)
            self.fail(self.at, f'the file ends before the "{bracket}" of line {line} is closed')
        self.fail(self.at, self.hint(otherwise))

    def fail(self, offset: int, message: str) -> NoReturn:
        """Raise the ConfigError for a syntax error at `offset`."""
        line = self.line(offset)
        column = offset - self.line_starts[line - 1] + 1
        raise ConfigError((Problem(self.file, line, "", f"column {column}: {message}"),))
