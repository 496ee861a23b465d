"""Says in what a configuration of ours differs from the Perl proxy's.

Compares what both can say: what only ours has (`window`, `hold`, ...) is no difference. Keys are
compared as keys, wherever they are kept, and never shown.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from gevproxy.config import Config, ForwardConfig, Rewrite, SetField, Substitute, resolve_key
from gevproxy.convert.model import Converted, Forward, Key
from gevproxy.errors import ConfigError
from gevproxy.stages.crypto import aes_key

_SET = re.compile(rb"\^([\w-]+)=\.\*\$")


@dataclass(slots=True)
class Comparison:
    """What differs, and what could not be compared."""

    differences: list[str] = field(default_factory=list)
    remarks: list[str] = field(default_factory=list)


def compare(converted: Converted, ours: Config, environ: Mapping[str, str]) -> Comparison:
    """Compare the Perl proxy's configuration with one of ours."""
    result = Comparison()
    differences = result.differences
    in_perl = {forward.source: forward for forward in converted.forwards}
    in_json = {forward.source: forward for forward in ours.forwards}
    differences += (f"{key}: in Perl only" for key in in_perl if key not in in_json)
    differences += (f"{key}: in the JSON only" for key in in_json if key not in in_perl)
    for key, forward in in_perl.items():
        if other := in_json.get(key):
            differences += (f"{key}: {text}" for text in _forward(forward, other, environ))
            result.remarks += (f"{key}: {text}" for text in _not_compared(forward, other))
    for name, perl, json in (
        ("status_queue", converted.status_queue, ours.status_queue),
        ("log_file", converted.log_file or ours.log_file, ours.log_file),
        ("debug", converted.debug, ours.debug),
    ):
        if perl != json:
            differences.append(f"{name}: {_say(perl)} in Perl, {_say(json)} in the JSON")
    result.remarks += converted.left_out
    return result


def _say(value: object) -> str:
    return (
        "none" if value is None else str(value).lower() if isinstance(value, bool) else str(value)
    )


def _forward(perl: Forward, ours: ForwardConfig, environ: Mapping[str, str]) -> Iterator[str]:
    """Yield what is different about one forward."""
    if perl.target != ours.target:
        yield f"goes to {perl.target} in Perl, to {ours.target} in the JSON"
    kinds = {True: "asynchronous", False: "synchronous"}
    if perl.asynchronous != ours.asynchronous:
        yield f"{kinds[perl.asynchronous]} in Perl, {kinds[ours.asynchronous]} in the JSON"
    elif perl.workers != ours.workers:
        yield f"{perl.workers} workers in Perl, {ours.workers} in the JSON"
    yield from _key("decrypt", perl.decrypt, ours.decrypt, environ)
    encrypt = () if ours.encrypt is None else (ours.encrypt,)
    yield from _key("encrypt", perl.encrypt, encrypt, environ)
    stages = perl.decrypt or perl.encrypt or perl.rewrite or perl.callback
    if stages and perl.payload is not ours.payload:
        yield f"payload is {perl.payload.value} in Perl, {ours.payload.value} in the JSON"
    yield from _changes(perl, ours)


def _key(
    option: str, perl: Key | None, specs: Sequence[str], environ: Mapping[str, str]
) -> Iterator[str]:
    """Compare a key with ours, of which several may be in use while they change."""
    if perl is None or not specs:
        if perl is not None or specs:
            yield f"{option} is in {'the JSON' if perl is None else 'Perl'} only"
        return
    if perl.path and f"file:{perl.path}" in specs:
        return
    try:
        # As Perl reads it: without one line feed, and nothing else.
        secret = Path(perl.path).read_bytes().removesuffix(b"\n") if perl.path else perl.secret
        ours = [aes_key(resolve_key(spec, environ=environ)) for spec in specs]
    except OSError as error:
        yield f"{option} cannot be compared: {perl.path}: {error.strerror}"
    except ConfigError as error:
        yield f"{option} cannot be compared: {error}"
    else:
        if aes_key(secret) not in ours:
            yield f"{option} is another key"


def _changes(perl: Forward, ours: ForwardConfig) -> Iterator[str]:
    """Compare what is done to the text, as far as rules tell."""
    if any(_not_compared(perl, ours)):
        return
    if perl.callback:
        yield "data_callback is in Perl only"
    elif _plain(perl.rewrite) != _plain(ours.rewrite):
        yield "rewrite does not do what the callback in Perl does"
    elif ours.data_callback:
        yield "data_callback is in the JSON only"


def _not_compared(perl: Forward, ours: ForwardConfig) -> Iterator[str]:
    """Yield that somebody has written a callback anew, which nothing can compare."""
    rewritten = perl.callback and (ours.data_callback or ours.rewrite)
    if rewritten or (perl.rewrite and ours.data_callback and not ours.rewrite):
        yield "the callback in Perl and what the JSON has for it are not compared"


def _plain(rules: Sequence[Rewrite]) -> list[Rewrite]:
    """Return rules with each in one spelling: a pattern that sets a field is `set`."""
    return [_as_set(rule) if isinstance(rule, Substitute) else rule for rule in rules]


def _as_set(rule: Substitute) -> Rewrite:
    found = _SET.fullmatch(rule.pattern)
    start = found[1] + b"=" if found else b""
    if not start or not rule.replace.startswith(start) or b"\\" in rule.replace:
        return rule
    return SetField(found[1], rule.replace.removeprefix(start)) if found else rule
