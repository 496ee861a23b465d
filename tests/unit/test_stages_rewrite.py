"""Rewriting: what is asked for changes, and not a byte more."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gevproxy.config.model import Rewrite, SetField, Substitute
from gevproxy.errors import ConfigError
from gevproxy.stages.rewrite import compile_rules


def rewrite(text: bytes, *rules: Rewrite) -> bytes:
    """Apply rules one after the other."""
    for step in compile_rules(rules):
        text = step(text)
    return text


def set_queue(text: bytes, value: bytes = b"b") -> bytes:
    """Set the field result_queue."""
    return rewrite(text, SetField(b"result_queue", value))


def test_a_pattern_matches_in_every_line() -> None:
    text = b"type=x\nresult_queue=a\nresult_queue=c\n\nresult_queue=d"
    rule = Substitute(rb"^result_queue=.*$", b"result_queue=b")
    assert rewrite(text, rule) == b"type=x\nresult_queue=b\nresult_queue=b\n\nresult_queue=b"


def test_a_replacement_may_refer_to_groups() -> None:
    rule = Substitute(rb"^host_name=(?P<host>\w+)\.(\w+)$", rb"host_name=\2_\g<host>")
    assert rewrite(b"a=1\nhost_name=x.y\n", rule) == b"a=1\nhost_name=y_x\n"


def test_rules_work_on_bytes_and_leave_other_bytes_alone() -> None:
    text = b"source=@\302\240rig\377\numl=\303\274\r\n"
    rule = Substitute("ü".encode(), "Ü\u00a0".encode())
    assert rewrite(text, rule) == b"source=@\302\240rig\377\numl=\303\234\302\240\r\n"


def test_rules_follow_each_other() -> None:
    assert rewrite(b"a", Substitute(b"a", b"b"), Substitute(b"b", b"c")) == b"c"


@pytest.mark.parametrize(
    ("pattern", "replace"), [(b"(", b""), (b"a", rb"\1"), (b"a", rb"\g<x>"), (b"a", rb"\q")]
)
def test_what_is_no_pattern_is_a_problem_of_the_configuration(
    pattern: bytes, replace: bytes
) -> None:
    with pytest.raises(ConfigError):
        compile_rules([Substitute(pattern, replace)])


@pytest.mark.parametrize(
    ("before", "after"),
    [
        (b"type=x\nresult_queue=a\ntimeout=1\n\n\n", b"type=x\nresult_queue=b\ntimeout=1\n\n\n"),
        (b"result_queue=a\n\n", b"result_queue=b\n\n"),
        (b"type=x\nresult_queue=\n\n", b"type=x\nresult_queue=b\n\n"),
        (b"type=x\nresult_queue=a", b"type=x\nresult_queue=b"),
        (b"result_queue=a\nresult_queue=c\n", b"result_queue=b\nresult_queue=b\n"),
        (b"result_queue=a=1\302\240\r\n\n", b"result_queue=b\n\n"),
    ],
)
def test_set_changes_the_whole_line_and_every_one_of_the_name(before: bytes, after: bytes) -> None:
    assert set_queue(before) == after


@pytest.mark.parametrize(
    ("before", "after"),
    [
        (b"type=x\nh=1\n\n\n", b"type=x\nh=1\nresult_queue=b\n\n\n"),
        (b"type=x\n", b"type=x\nresult_queue=b\n"),
        (b"type=x", b"type=x\nresult_queue=b"),
        (b"type=x\n\nresult_queue=a\n", b"type=x\nresult_queue=b\n\nresult_queue=a\n"),
        (b"", b"result_queue=b\n"),
        (b"\n", b"result_queue=b\n\n"),
        (b"\nresult_queue=a", b"result_queue=b\n\nresult_queue=a"),
    ],
)
def test_set_adds_what_is_missing_after_the_last_header_line(before: bytes, after: bytes) -> None:
    assert set_queue(before) == after


@pytest.mark.parametrize(
    "line",
    [
        b"xresult_queue=a",
        b"result_queue_x=a",
        b"command_line=echo result_queue=a",
        b"output=\\nresult_queue=a",
        b"result_queue",
        b" result_queue=a",
        b"x\rresult_queue=a",
    ],
)
def test_set_leaves_lines_alone_that_only_look_like_it(line: bytes) -> None:
    assert set_queue(line + b"\n\n") == line + b"\nresult_queue=b\n\n"


def test_set_leaves_the_text_after_the_header_alone() -> None:
    body = b"\n\noutput of a plugin\nresult_queue=x\n\nresult_queue=y"
    assert set_queue(b"type=x\nresult_queue=a" + body) == b"type=x\nresult_queue=b" + body


@pytest.mark.parametrize("value", [rb"\1", rb"a\g<0>\\", b"\\n", b"a=b", b"", b"\377"])
def test_a_value_is_no_template(value: bytes) -> None:
    assert set_queue(b"a=1\nresult_queue=a\nc=1\n", value) == (
        b"a=1\nresult_queue=" + value + b"\nc=1\n"
    )
    assert set_queue(b"a=1\n", value) == b"a=1\nresult_queue=" + value + b"\n"


def test_a_name_is_no_pattern() -> None:
    assert rewrite(b"axb=1\n", SetField(b"a.b", b"2")) == b"axb=1\na.b=2\n"


def test_a_large_text_keeps_its_output() -> None:
    output = b"output=" + b"x|v=1\\n\302\240" * (1 << 20) + b"\n\n\n"
    text = b"host_name=h\nresult_queue=a\n" + output
    assert set_queue(text) == b"host_name=h\nresult_queue=b\n" + output


PIECES = st.sampled_from([b"n", b"n=", b"=", b"\n", b"\n\n", b"x", b"n=1\n", b"\xff"])


@given(st.lists(PIECES).map(b"".join), st.sampled_from([b"2", b"\\1", b""]))
def test_set_is_what_its_description_says(text: bytes, value: bytes) -> None:
    """The same, line by line: slow, and easy to believe."""
    lines = text.split(b"\n")
    end = lines.index(b"") if b"" in lines else len(lines)
    header, rest = lines[:end], lines[end:]
    changed = [b"n=" + value if line.startswith(b"n=") else line for line in header]
    if not any(line.startswith(b"n=") for line in header):
        changed.append(b"n=" + value)
    assert rewrite(text, SetField(b"n", value)) == b"\n".join([*changed, *rest])


@given(st.binary(), st.binary(min_size=1), st.binary())
def test_a_literal_pattern_is_bytes_replace(text: bytes, old: bytes, new: bytes) -> None:
    rule = Substitute(re.escape(old), new.replace(b"\\", b"\\\\"))
    assert rewrite(text, rule) == text.replace(old, new)


PATTERNS = [
    rb"^ab=.*$",
    rb"^ab",
    rb"^abb*",
    rb"^ab?=",
    rb"^ab{0,1}",
    rb"^ab=(\w)(c)?$",
    rb"^ab\n",
    rb"^ab[^x]*b",
    rb"^a(?<=\na)b",
    rb"^ab=|c",
    rb"^(?i:AB)=",
    rb"^ab(?=\n)",
    rb"^ab$\Z",
    rb"^a(?s:.*)c",
    rb"^ab\b",
]
"""Some begin with a literal, some only seem to."""


@pytest.mark.parametrize("pattern", PATTERNS)
@given(
    text=st.lists(st.sampled_from([b"ab\n", b"ab", b"b", b"=", b"c", b"\n", b"AB", b"x\n"])),
    template=st.sampled_from([b"", b"new", rb"\g<0>\n", b"ab", b"ab\n"]),
)
def test_a_pattern_does_what_it_does_elsewhere(
    pattern: bytes, text: list[bytes], template: bytes
) -> None:
    joined = b"".join(text)
    expected = re.sub(pattern, template, joined, flags=re.MULTILINE)
    assert rewrite(joined, Substitute(pattern, template)) == expected


def test_groups_are_filled_in_where_the_pattern_begins_with_a_literal() -> None:
    rule = Substitute(rb"^ab=(x)(y)?.*$", rb"\2\1")
    assert rewrite(b"ab=xyz\nab=xz\nab=z\n", rule) == b"yx\nx\nab=z\n"
