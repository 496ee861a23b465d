r"""From a Perl callback to rewrite rules, where it does nothing but `$data =~ s/.../.../gm`.

Reads what B::Deparse writes, which is Perl in one spelling, and takes only what surely means the
same in Python: whatever else stands in a callback makes it a person's. Pure; knows no file.

Our rules are multi-line and replace every match, so Perl's other flags are expressed in the
pattern. Perl and Python differ in `^` behind the last line end and in empty matches: neither is
taken.
"""

import re
from collections.abc import Iterator, Mapping
from typing import Final

from gevproxy.config import Substitute
from gevproxy.convert.evaluate import Code
from gevproxy.errors import GevproxyError

_NAME: Final = r"[A-Za-z_]\w*(?:::\w+)*"

_OPENING: Final = re.compile(r"(?:\([$@;\\]*\) )?\{\s*")

# Rules work on bytes; `use feature` with these would make Perl's \w and /i those of Unicode.
_PRAGMA: Final = re.compile(
    r"(?:package [\w:]+|(?:use|no) (?:strict|warnings|utf8)[^;]*|no feature [^;]*"
    r"|use feature (?![^;]*(?:unicode|:all|:5\.(?:1[2-9]|[2-9]\d)))[^;]*);\s*"
    r"|BEGIN \{\$\{\^WARNING_BITS\} = [^}]*\}\s*"
)

_FIRST_ARGUMENT: Final = r"(?:shift\(\)|shift\(@_\)|shift @_|\$_\[0\])"

_BEGIN: Final = re.compile(
    r"my\((?P<first>\$\w+)(?:, \$\w+)*\) = @_;\s*"
    rf"|(?:my |local )(?P<single>\$\w+) = {_FIRST_ARGUMENT};\s*"
    rf"|\(my (?P<together>\$\w+) = {_FIRST_ARGUMENT}\) =~ (?=s\W)"
)

_STATEMENT: Final = re.compile(r"(?P<last>return )?(?:(?P<target>\$\w+) =~ )?(?=s[^\w\s=,;])")

_NEXT: Final = re.compile(r";\s*")

_RETURN: Final = re.compile(rf"(?:return )?(?P<result>\$\w+)(?:, (?:undef|\$(?P<unique>{_NAME})))?")

_CLOSING: Final = re.compile(r";?\s*\}\s*")

_BRACKETS: Final = {"[": "]", "(": ")", "{": "}", "<": ">"}

_FLAGS: Final = frozenset("gmixsoar")

_VARIABLE: Final = re.compile(
    rf"\\Q\$\{{?(?P<quoted>{_NAME})\}}?\\E"
    rf"|\$(?:\{{(?P<braced>{_NAME})\}}|(?P<bare>{_NAME})(?!\[|\{{|->))"
    r"|(?P<other>\\.|\$(?=[()| \r\n\t]|$)|@(?![\w:{$])|[^$@\\])",
    re.DOTALL,
)
"""What a pattern is made of while variables stand in it. Before these alone `$` is an anchor."""

_TOKEN: Final = re.compile(
    r"(?P<group>\(\?:|\((?!\?)|\)|\|)"
    r"|(?P<class>\[\^?(?:\\[dwsntrf]|\\[^A-Za-z0-9]|[^\]\[\\])+\])"
    r"|(?P<repeat>(?:[*+?]|\{\d+(?:,\d*)?\})\??(?![*+?]))"
    r"|(?P<same>\\[dDwWsSntrf]|\\[^A-Za-z0-9]|\.)"
    r"|(?P<begin>\^)|(?P<end>\$)|(?P<literal>[^\\*+?{}()\[\]|^$.])",
    re.DOTALL,
)

_PIECE: Final = re.compile(
    rf"\$(?:(?P<group>\d(?!\d)|&)|\{{(?P<braced>{_NAME})\}}|(?P<bare>{_NAME})(?!\[|\{{|->))"
    r"|\\(?:(?P<octal>[0-3][0-7]{2})|(?P<control>[ntrfae])|(?P<escaped>[^A-Za-z0-9]))"
    r"|(?P<literal>[^\\$@])",
    re.DOTALL,
)

_CONTROLS: Final = {"n": b"\n", "t": b"\t", "r": b"\r", "f": b"\f", "a": b"\a", "e": b"\x1b"}

_SET_OPERATIONS: Final = re.compile(r"--|&&|~~|\|\|")
"""In a class Python keeps them for itself."""


class Untranslatable(GevproxyError):  # noqa: N818 - it reads as what it is
    """A callback that a person must write anew. The text says why and quotes nothing of it."""


def rules(code: Code) -> tuple[Substitute, ...]:
    """Return the rules that do what a callback does. Raises Untranslatable."""
    return tuple(_Reader(code.text, code.scalars).rules())


class _Reader:
    """Reads a deparsed callback from its first brace to its last; `at` is what comes next."""

    def __init__(self, text: str, scalars: Mapping[str, bytes | None]) -> None:
        self.text = text
        self.scalars = scalars
        self.at = 0

    def rules(self) -> Iterator[Substitute]:
        """Yield the rule of each statement."""
        self.expect(_OPENING, "it is no plain sub")
        while self.take(_PRAGMA):
            pass
        begin = self.expect(_BEGIN, "it does not begin with my($data) = @_ or with shift")
        target = begin["first"] or begin["single"] or begin["together"]
        if begin["together"]:
            rule, _ = self.substitution()
            yield rule
            self.expect(_NEXT, "it is more than s///")
        while statement := self.take(_STATEMENT):
            if (statement["target"] or "$_") != target:
                raise Untranslatable("it changes something else than the job's text")
            rule, returns = self.substitution()
            yield rule
            if returns:
                self.expect(_CLOSING, "it goes on after s///r")
                return
            if statement["last"]:
                raise Untranslatable("it returns the number of changes, not the text")
            self.expect(_NEXT, "it is more than s///, or does not return the text")
        self.result(target)

    def result(self, target: str) -> None:
        """Read the end, which must be the text alone, or with a unique that is not set."""
        end = self.expect(_RETURN, "it is more than s/// on the text")
        if end["result"] != target:
            raise Untranslatable("it returns something else than the job's text")
        if end["unique"] and self.scalars.get(end["unique"], b"") is not None:
            raise Untranslatable("it returns a unique")
        self.expect(_CLOSING, "it is more than s/// on the text")

    def substitution(self) -> tuple[Substitute, bool]:
        """Read s/pattern/replacement/flags; return the rule and whether /r returns the result."""
        self.at += 1
        pattern, bracketed = self.delimited()
        if not bracketed:
            self.at -= 1  # the delimiter in the middle closes one and opens the other
        replacement, _ = self.delimited()
        flags = frozenset(self.expect(re.compile("[a-z]*"), "it is no plain s///").group())
        if not flags <= _FLAGS:
            raise Untranslatable("its s/// has a flag such as /e, which runs Perl")
        return _translate(pattern, replacement, flags, self.scalars), "r" in flags

    def delimited(self) -> tuple[str, bool]:
        """Return what stands up to the closing delimiter, and whether that is a bracket."""
        opening = self.text[self.at : self.at + 1]
        closing = _BRACKETS.get(opening, opening)
        self.at += 1
        start, depth = self.at, 1
        while self.at < len(self.text):
            letter = self.text[self.at]
            if letter == closing:
                depth -= 1
                if not depth:
                    self.at += 1
                    return self.text[start : self.at - 1], closing != opening
            elif letter == opening:
                depth += 1
            self.at += 2 if letter == "\\" else 1
        raise Untranslatable("its s/// cannot be read")

    def take(self, pattern: re.Pattern[str]) -> re.Match[str] | None:
        """Step over what comes next if it looks like this."""
        found = pattern.match(self.text, self.at)
        if found:
            self.at = found.end()
        return found

    def expect(self, pattern: re.Pattern[str], otherwise: str) -> re.Match[str]:
        """Step over what comes next, which must look like this."""
        found = self.take(pattern)
        if not found:
            raise Untranslatable(otherwise)
        return found


def _translate(
    pattern: str, replacement: str, flags: frozenset[str], scalars: Mapping[str, bytes | None]
) -> Substitute:
    """Return the rule of one s///, with Perl's flags in its pattern."""
    source = _interpolate(pattern, scalars)
    tokens = list(_tokens(source, flags))
    first_only = "g" not in flags and tokens[:1] != [r"\A"]
    if first_only:
        if "$&" in replacement:
            raise Untranslatable("it replaces the first match alone, without /g")
        tokens = _first_match(tokens)
    switches = "".join(sorted(flags & {"i", "s"}))
    translated = (f"(?{switches})" if switches else "") + "".join(tokens)
    try:
        compiled = re.compile(translated.encode("ascii"), re.MULTILINE)
    except (re.error, UnicodeEncodeError, OverflowError, RecursionError) as error:
        raise Untranslatable("its pattern means something else in Python") from error
    if compiled.match(b""):
        raise Untranslatable("its pattern matches an empty text")
    template = _template(replacement, compiled.groups, first_only, scalars)
    try:
        template.decode()
    except UnicodeDecodeError as error:
        raise Untranslatable("its replacement is not UTF-8") from error
    return Substitute(translated.encode(), template)


def _first_match(tokens: list[str]) -> list[str]:
    """Return a pattern that matches from the text's beginning up to its first match, and that.

    What stands before the match is a group, the first. Where lines are matched it is whole lines:
    character by character would take ten times as long.
    """
    if tokens[:1] != ["^"]:
        return [r"\A([\s\S]*?)(?:", *tokens, ")"]
    if "|" in tokens:
        raise Untranslatable("it replaces the first match alone, without /g")
    return [r"\A((?:[^\n]*\n)*?)", *tokens[1:]]


def _interpolate(pattern: str, scalars: Mapping[str, bytes | None]) -> str:
    """Put the values of variables into a pattern, as Perl does before it compiles it."""
    parts = []
    for found in _scan(_VARIABLE, pattern, "its pattern has a variable that is no plain scalar"):
        if found["other"]:
            parts.append(found["other"])
            continue
        value = _value(found["quoted"] or found["braced"] or found["bare"], scalars)
        text = value.decode("ascii", errors="replace")
        # An unknown character fails later, where the pattern must be ASCII.
        parts.append(re.escape(text) if found["quoted"] else text)
    return "".join(parts)


def _tokens(source: str, flags: frozenset[str]) -> Iterator[str]:
    """Yield a pattern's parts in Python's spelling."""
    if "x" in flags:
        # Outside of classes, white space and comments are there to be read.
        source = re.sub(
            r"(\\.|\[(?:\\.|[^\]\\])*\])|\s+|#[^\n]*",
            lambda found: found[1] or "",
            source,
            flags=re.DOTALL,
        )
    many = "m" in flags
    for found in _scan(_TOKEN, source, "its pattern has something that Python may not have"):
        token = found.group()
        if found["begin"]:
            if found.start():
                raise Untranslatable("its pattern has a ^ that is not at its beginning")
            yield "^" if many else r"\A"
        elif found["end"]:
            yield "$" if many else r"(?=\n?\Z)"
        elif found["class"] and _SET_OPERATIONS.search(token):
            raise Untranslatable("its pattern has something that Python may not have")
        else:
            yield token


def _template(
    replacement: str, groups: int, first_only: bool, scalars: Mapping[str, bytes | None]
) -> bytes:
    """Return a replacement as a template of Python's."""
    parts = [rb"\g<1>"] if first_only else []
    for found in _scan(_PIECE, replacement, "its replacement is more than text and variables"):
        if found["group"]:
            number = 0 if found["group"] == "&" else int(found["group"]) + first_only
            if number > groups or found["group"] == "0":
                raise Untranslatable("its replacement names a group that the pattern has not")
            parts.append(rb"\g<%d>" % number)
        else:
            parts.append(_literal(found, scalars).replace(b"\\", rb"\\"))
    return b"".join(parts)


def _literal(found: re.Match[str], scalars: Mapping[str, bytes | None]) -> bytes:
    """Return the bytes that a part of a replacement stands for."""
    if name := found["braced"] or found["bare"]:
        return _value(name, scalars)
    if found["octal"]:
        return bytes([int(found["octal"], 8)])
    if found["control"]:
        return _CONTROLS[found["control"]]
    text: str = found["escaped"] or found["literal"]
    return text.encode()


def _value(name: str, scalars: Mapping[str, bytes | None]) -> bytes:
    value = scalars.get(name)
    if value is None:
        raise Untranslatable(
            "it uses a variable that has no value here, or one that is no plain text"
        )
    return value


def _scan(pattern: re.Pattern[str], text: str, otherwise: str) -> Iterator[re.Match[str]]:
    """Yield match after match, with nothing in between and nothing left over."""
    at = 0
    while at < len(text):
        found = pattern.match(text, at)
        if not found:
            raise Untranslatable(otherwise)
        yield found
        at = found.end()
