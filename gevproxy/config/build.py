"""From a merged, faultless configuration to the frozen Config, with all defaults filled in.

By now nothing can be wrong any more: what is found to be wrong here is a bug of the checks.
"""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from gevproxy.config.address import parse_host, parse_listen
from gevproxy.config.checks import (
    ASYNC_ONLY,
    SYNC_ONLY,
    anchored_key,
    elements,
    is_async,
    parse_pin,
)
from gevproxy.config.merge import Merged, Queue, ServerEntry
from gevproxy.config.model import (
    ALL_WINDOWS_BYTES,
    DEFAULT_WINDOW_BYTES,
    Config,
    Expect,
    ForwardConfig,
    MetricsConfig,
    OnDisconnect,
    OnLate,
    Payload,
    Rewrite,
    SetField,
    Substitute,
    TlsConfig,
    UniquePolicy,
)
from gevproxy.config.schema import NOTES
from gevproxy.config.source import Node
from gevproxy.gearman.job import Priority

_STREAMS = ("stderr", "stdout")


def build(merged: Merged, environ: Mapping[str, str]) -> Config:
    """Return the configuration that was written; `environ` gives the default for dead letters."""
    share = ALL_WINDOWS_BYTES // len(merged.queues)
    window_bytes = min(DEFAULT_WINDOW_BYTES, share)
    given = {
        _SETTINGS[name][0]: _SETTINGS[name][1](node)
        for name, node in merged.settings.items()
        if name in _SETTINGS
    }
    return Config(
        forwards=tuple(
            _forward(queue, merged.defaults, window_bytes) for queue in merged.queues.values()
        ),
        servers={server: _tls(entry) for server, entry in merged.servers.items()},
        status_queue=merged.status_queue,
        **{"dead_letters": _default_dead_letters(environ)} | given,
    )


def _forward(queue: Queue, defaults: Mapping[str, Node], window_bytes: int) -> ForwardConfig:
    if queue.target is None:
        raise AssertionError(f"{queue.source} passed the checks without a target")
    asynchronous = is_async(queue, defaults)
    unfit = SYNC_ONLY if asynchronous else ASYNC_ONLY
    options = {name: node for name, node in defaults.items() if name not in unfit} | queue.options
    fields: dict[str, Any] = {"window_bytes": window_bytes}
    fields |= {_name(name): _OPTIONS[name](node) for name, node in options.items()}
    if not asynchronous:
        workers = fields.get("workers", 1)
        fields |= {"window": workers, "hold": 0.0, "unique": UniquePolicy.NONE}
    # A wrong key shows only in the text that comes out.
    fields.setdefault("expect", Expect.MOD_GEARMAN if fields.get("decrypt") else Expect.ANY)
    place = queue.node.problem("")
    return ForwardConfig(
        source=queue.source, target=queue.target, file=place.file, line=place.line, **fields
    )


def _tls(entry: ServerEntry) -> TlsConfig:
    place = entry.tls_node.problem("")
    return TlsConfig(
        file=place.file,
        pointer=place.pointer,
        lines={name: node.problem("").line for name, node in entry.tls.items()} | {"": place.line},
        **{_TLS[name][0]: _TLS[name][1](node) for name, node in entry.tls.items()},
    )


def _name(option: str) -> str:
    """Return an option's field; `async` is a word of Python's."""
    return "asynchronous" if option == "async" else option


def _default_dead_letters(environ: Mapping[str, str]) -> Path | None:
    """Return where dead letters go by default; None where the environment knows no place."""
    if state := environ.get("STATE_DIRECTORY"):
        # Several of a unit's folders are separated by colons.
        return Path(state.partition(":")[0])
    if state := environ.get("XDG_STATE_HOME"):
        return Path(state) / "gevproxy"
    home = environ.get("HOME")
    return Path(home) / ".local" / "state" / "gevproxy" if home else None


def _seconds(node: Node) -> float | None:
    return None if node.value is None else float(node.value)


def _whole(node: Node) -> int:
    # JSON Schema takes 3.0 for a whole number.
    return int(node.value)


def _same(node: Node) -> Any:  # noqa: ANN401 - true, false or a text
    return node.value


def _log_file(node: Node) -> str:
    value: str = node.value
    return value if value in _STREAMS else str(node.path(value))


def _decrypt(node: Node) -> tuple[str, ...]:
    return tuple(anchored_key(key) for key in elements(node))


def _encrypt(node: Node) -> str | None:
    return None if node.value is None else anchored_key(node)


def _rewrite(node: Node) -> tuple[Rewrite, ...]:
    return tuple(step for rule in elements(node) for step in _rule(rule.value))


def _rule(rule: Mapping[str, Any]) -> list[Rewrite]:
    if "set" not in rule:
        return [Substitute(rule["pattern"].encode(), rule["replace"].encode())]
    fields = rule["set"].items()
    return [SetField(name.encode(), value.encode()) for name, value in fields if name not in NOTES]


def _data_callback(node: Node) -> str | None:
    if node.value is None:
        return None
    place, _, function = node.value.rpartition(":")
    return f"{node.path(place)}:{function}" if place.endswith(".py") else node.value


def _metrics(node: Node) -> MetricsConfig | None:
    if node.value is None:
        return None
    host, port = parse_listen(node.value)
    place = node.problem("")
    return MetricsConfig(host=host, port=port, file=place.file, line=place.line)


def _path(node: Node) -> Path | None:
    return None if node.value is None else node.path(node.value)


_TLS: Mapping[str, tuple[str, Callable[[Node], Any]]] = {
    "ca": ("ca", _path),
    "cert": ("cert", _path),
    "key": ("key", _path),
    "server_name": ("server_name", lambda node: node.value and parse_host(node.value)),
    "pin_sha256": ("pins", lambda node: frozenset(parse_pin(pin.value) for pin in elements(node))),
}
"""Each option of a server's TLS, its field in TlsConfig, and how that is made."""

_SETTINGS: Mapping[str, tuple[str, Callable[[Node], Any]]] = {
    "status/critical_after": ("status_critical_after", _seconds),
    "status/certificate_days": ("status_certificate_days", _seconds),
    "metrics/listen": ("metrics", _metrics),
    "dead_letters": ("dead_letters", lambda node: node.path(node.value)),
    "log_file": ("log_file", _log_file),
    "debug": ("debug", _same),
    "drain": ("drain", _seconds),
    "max_packet": ("max_packet", _whole),
    "poll": ("poll", _seconds),
}
"""Each plain setting's field in Config, and how it is made from what is written."""

_OPTIONS: Mapping[str, Callable[[Node], Any]] = {
    "async": _same,
    "workers": _whole,
    "on_disconnect": lambda node: OnDisconnect(node.value),
    "timeout": _seconds,
    "window": _whole,
    "window_bytes": _whole,
    "hold": _seconds,
    "priority": lambda node: Priority(node.value),
    "unique": lambda node: UniquePolicy(node.value),
    "decrypt": _decrypt,
    "encrypt": _encrypt,
    "rewrite": _rewrite,
    "data_callback": _data_callback,
    "payload": lambda node: Payload(node.value),
    "expect": lambda node: Expect(node.value),
    "max_age": _seconds,
    "on_late": lambda node: OnLate(node.value),
    "max_target_waiting": lambda node: None if node.value is None else int(node.value),
}
"""Each forward option, and how its field in ForwardConfig is made from what is written."""
