"""What a schema cannot say: circles, options on the wrong kind of forward, files, patterns.

Everything is looked at and every problem found; nothing is changed. Key files are opened to see
that they can be, and what is in them is forgotten; callbacks are not imported, certificates not
opened.
"""

import base64
import binascii
import difflib
import re
from collections.abc import Iterator, Mapping
from importlib.util import find_spec
from pathlib import Path

from gevproxy.config.address import parse_host, parse_listen
from gevproxy.config.keys import FILE, resolve_key
from gevproxy.config.merge import Merged, Queue, ServerEntry
from gevproxy.config.model import QueueAddress
from gevproxy.config.schema import NOTES
from gevproxy.config.source import Node
from gevproxy.errors import ConfigError, Problem

SYNC_ONLY: Mapping[str, str] = {
    "workers": 'an asynchronous one\'s limit is "window"',
    "on_disconnect": "an asynchronous one always gives its jobs back to the source",
    "timeout": "an asynchronous one does not wait for answers",
}
"""Options of synchronous forwards, and why an asynchronous one has no use for them."""

ASYNC_ONLY: Mapping[str, str] = {
    "window": 'a synchronous one\'s window is "workers"',
    "hold": "a synchronous one never keeps jobs while the target is away",
    "unique": "a synchronous one never passes a unique on, because the target would attach a "
    "repeated job to one that nobody waits for any more, and its answer would vanish",
    "max_age": 'whoever waits for a synchronous job gets its answer; its limit is "timeout"',
    "on_late": 'it goes with "max_age", which is for asynchronous forwards',
}
"""Options of asynchronous forwards, and why a synchronous one has no use for them."""

_SHA256, _HEX = 32, 64
"""Bytes of a SHA-256 sum, and how many hexadecimal digits that is."""

# Python's names, and names with dots.
_NAME = re.compile(r"[^\W\d]\w*")
_MODULE = re.compile(rf"{_NAME.pattern}(\.{_NAME.pattern})*")


def logical_problems(merged: Merged, environ: Mapping[str, str]) -> Iterator[Problem]:
    """Yield everything that is wrong with a configuration that follows the schema."""
    yield from _no_queues(merged)
    yield from _status_queue(merged)
    yield from _metrics(merged)
    yield from _circles(merged)
    for queue in merged.queues.values():
        if merged.whole:
            yield from _misfits(queue, merged.defaults)
        yield from _values(queue.options, environ)
    yield from _values(merged.defaults, environ)
    yield from _unused_servers(merged)
    for entry in merged.servers.values():
        yield from _tls(entry)
    yield from _unwatched(merged)
    if merged.whole:
        yield from _never_late(merged)


def is_async(queue: Queue, defaults: Mapping[str, Node]) -> bool:
    """Whether a forward is asynchronous, which it is unless somebody says otherwise."""
    node = queue.options.get("async") or defaults.get("async")
    return node is None or bool(node.value)


def _no_queues(merged: Merged) -> Iterator[Problem]:
    """Check that there is a forward at all; a file that was not read may hold some."""
    if not merged.queues_named and merged.whole:
        where = "" if len(merged.files) == 1 else f" in {', '.join(merged.files)}"
        message = f'no queue is configured{where}: "queues" must name at least one'
        yield Problem(merged.files[0], 0, "/queues", message)


def _status_queue(merged: Merged) -> Iterator[Problem]:
    """Check that no job of the status queue is forwarded, and none is forwarded there."""
    address = merged.status_queue
    if address is None:
        return
    node = merged.settings["status_queue"]
    if address in merged.queues:
        other = merged.queues[address].node
        yield node.problem(f"{address} is the status queue and forwarded too, in {other}")
    for queue in merged.queues.values():
        if queue.target == address:
            yield node.problem(f"{address} is the status queue and a target too, in {queue.node}")


def _metrics(merged: Merged) -> Iterator[Problem]:
    """Check that there is an address to listen at, and what it takes to tell metrics."""
    node = merged.settings.get("metrics/listen")
    if node is None or node.value is None:
        return
    try:
        parse_listen(node.value)
    except ValueError as error:
        yield node.problem(str(error))
    if find_spec("prometheus_client") is None:
        yield node.problem(
            "metrics need the Python package prometheus-client, which is not installed: "
            "pip install 'gevproxy[metrics]', or leave \"metrics\" out"
        )


def _unwatched(merged: Merged) -> Iterator[Problem]:
    """Check that a limit on a queue's depth comes with a look at it."""
    poll = merged.settings.get("poll")
    if poll is None or poll.value:
        return
    for options in (merged.defaults, *(queue.options for queue in merged.queues.values())):
        node = options.get("max_target_waiting")
        if node is not None and node.value is not None:
            text = (
                f'"max_target_waiting" does nothing while "poll" is 0, in {poll}: set seconds there'
            )
            yield node.problem(text)


def _never_late(merged: Merged) -> Iterator[Problem]:
    """Check that what becomes of late checks comes with an age; null says that none is late."""
    if "max_age" in merged.defaults:
        return
    queues = [queue for queue in merged.queues.values() if is_async(queue, merged.defaults)]
    ageless = [queue.options for queue in queues if not _names_an_age(queue)]
    nobody = [merged.defaults] if len(ageless) == len(queues) else []
    for options in (*nobody, *ageless):
        if node := options.get("on_late"):
            yield node.problem('"on_late" does nothing without "max_age": set seconds beside it')


def _names_an_age(queue: Queue) -> bool:
    """Whether there is one, right or wrong."""
    return isinstance(queue.node.value, dict) and "max_age" in queue.node.value


def _circles(merged: Merged) -> Iterator[Problem]:
    """Follow every source to its target and on, until the way ends or comes back."""
    seen: set[QueueAddress] = set()
    for start in merged.queues:
        way: list[QueueAddress] = []
        at: QueueAddress | None = start
        while at in merged.queues and at not in seen:
            seen.add(at)
            way.append(at)
            at = merged.queues[at].target
        if at in way:
            yield _circle(merged, way[way.index(at) :])


def _circle(merged: Merged, circle: list[QueueAddress]) -> Problem:
    node = merged.queues[circle[0]].node
    if len(circle) == 1:
        return node.problem("this forwards a queue onto itself")
    names = " -> ".join(str(address) for address in [*circle, circle[0]])
    return node.problem(f"these forwards are a circle, jobs would never leave it: {names}")


def _unused_servers(merged: Merged) -> Iterator[Problem]:
    """Check that every server is used as it is written.

    One that is not is mostly a slip, and the forward that was meant would speak plain text.
    """
    if not merged.whole or merged.problems:
        return  # what is missing may be what uses it
    queues = merged.queues.values()
    used = {
        address.server
        for queue in queues
        for address in (queue.source, queue.target or queue.source)
    }
    if merged.status_queue is not None:
        used.add(merged.status_queue.server)
    for server in merged.servers.keys() - used:
        names = map(str, used - merged.servers.keys())
        near = difflib.get_close_matches(str(server), names, n=1, cutoff=0.75)
        hint = f"; did you mean {near[0]}?" if near else ""
        yield merged.servers[server].node.problem(
            f"no forward uses the server {server}: write it as the forwards do{hint}"
        )


def _tls(entry: ServerEntry) -> Iterator[Problem]:
    options = {name: node for name, node in entry.tls.items() if node.value is not None}
    for one, other in (("cert", "key"), ("key", "cert")):
        if one in options and other not in options:
            yield options[one].problem(f'"{one}" needs "{other}" beside it')
    if name := options.get("server_name"):
        try:
            parse_host(name.value)
        except ValueError as error:
            yield name.problem(str(error))
    for pin in elements(options["pin_sha256"]) if "pin_sha256" in options else ():
        try:
            parse_pin(pin.value)
        except ValueError as error:
            yield pin.problem(str(error))


def parse_pin(text: str) -> bytes:
    """Read a SHA-256 sum, in base64 as curl's or in hexadecimal as openssl's. ValueError."""
    text = text.removeprefix("sha256//").strip()
    try:
        pin = (
            binascii.unhexlify(text) if len(text) == _HEX else base64.b64decode(text, validate=True)
        )
    except ValueError:
        pin = b""
    if len(pin) != _SHA256:
        raise ValueError("this is no SHA-256 sum: 44 characters of base64 or 64 hexadecimal digits")
    return pin


def _misfits(queue: Queue, defaults: Mapping[str, Node]) -> Iterator[Problem]:
    """Check that a queue's own options fit its kind; those of `defaults` need not."""
    asynchronous = is_async(queue, defaults)
    kind = "synchronous" if asynchronous else "asynchronous"
    for option, reason in (SYNC_ONLY if asynchronous else ASYNC_ONLY).items():
        if option in queue.options:
            message = f'"{option}" is for {kind} forwards: {reason}'
            yield queue.options[option].problem(message)


def _values(options: Mapping[str, Node], environ: Mapping[str, str]) -> Iterator[Problem]:
    """Check the options whose values name something or hold a pattern."""
    for option, node in options.items():
        match option:
            case "decrypt" | "encrypt":
                yield from _keys(node, environ)
            case "rewrite":
                yield from _rewrite(node)
            case "data_callback" if node.value is not None:
                yield from _callback(node)


def _keys(node: Node, environ: Mapping[str, str]) -> Iterator[Problem]:
    for key in elements(node):
        try:
            resolve_key(anchored_key(key), environ=environ)
        except ConfigError as error:
            yield from (key.problem(problem.message) for problem in error.problems)


def _rewrite(node: Node) -> Iterator[Problem]:
    for rule in elements(node):
        members = {name: member for name, member in rule if name not in NOTES}
        if "set" in members:
            yield from _set_fields(members["set"])
        else:
            yield from _pattern(members["pattern"], members["replace"])


def _set_fields(node: Node) -> Iterator[Problem]:
    """Check that every field stays one line `name=value` and so cannot break up the text."""
    for name, member in node:
        if name in NOTES:
            continue
        if not name or any(letter in "=\n\0" for letter in str(name)):
            yield member.problem('a field\'s name is not empty and has no "=" or line end in it')
        if any(letter in "\n\0" for letter in member.value):
            yield member.problem("a field's value is one line")


def _pattern(pattern: Node, replace: Node) -> Iterator[Problem]:
    try:
        regex = re.compile(pattern.value.encode(), re.MULTILINE)
    except (re.error, ValueError, OverflowError, RecursionError) as error:
        yield pattern.problem(f"the pattern does not compile: {error}")
        return
    try:
        # Parses the template even where nothing matches.
        regex.sub(replace.value.encode(), b"")
    except (re.error, IndexError) as error:
        yield replace.problem(f"the replacement does not fit the pattern: {error}")


def _callback(node: Node) -> Iterator[Problem]:
    place, _, function = node.value.rpartition(":")
    is_file = place.endswith(".py")
    if not _NAME.fullmatch(function) or not (is_file or _MODULE.fullmatch(place)):
        yield node.problem('a callback is "module:function" or "PATH.py:function"')
    elif is_file and not _is_file(node.path(place)):
        yield node.problem(f"the callback's file {node.path(place)} does not exist")


def _is_file(path: Path) -> bool:
    try:
        return path.is_file()
    except (OSError, ValueError):  # a path too long, or with a NUL in it
        return False


def elements(node: Node) -> list[Node]:
    """Return the elements of an option that takes one thing, a list of them, or null."""
    if isinstance(node.value, list):
        return [element for _, element in node]
    return [] if node.value is None else [node]


def anchored_key(node: Node) -> str:
    """Return a key's spec, with a relative `file:` path starting at the file it is written in."""
    spec: str = node.value
    return f"{FILE}{node.path(spec.removeprefix(FILE))}" if spec.startswith(FILE) else spec
