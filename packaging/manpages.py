# ruff: noqa: INP001 - a folder of scripts, not a package
"""gevproxy(1), made from the parser of the command line, and gevproxy.json(5), from the schema.

Plain man(7) macros, which man-db and mandoc render alike. Writes nothing.
"""

import json
import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Final

from commands import Argument, Command

NOTES: Final = ("$schema", "$comment", "description")
"""Options of every object: told once."""

TOP: Final = """\
.SH DESCRIPTION
gevproxy takes jobs from queues of one gearmand and submits them to another. A job is completed at
its source only after the target has confirmed it, so a cut link, a restart or a crash of the relay
loses none. What is forwarded where is told by
.BR gevproxy.json (5).
"""

BOTTOM: Final = """\
.SH EXIT STATUS
.TP
.B 0
Stopped because it was told to, or all is well.
.TP
.B 1
An error that nobody expected, or something that was looked at is not well.
.TP
.B 2
The command line cannot be understood.
.TP
.B 78
The configuration cannot be used. Nothing was started or changed.
.SH FILES
.TP
.IR /etc/gevproxy/gevproxy.json ", " /etc/gevproxy/conf.d/*.json
The configuration, read where no
.B \\-\\-config
is given.
.TP
.I /etc/gevproxy/keys
Key files. Each belongs to the user gevproxy and has mode 0600.
.TP
.I /etc/gevproxy/NAME/*.json
The configuration of the instance
.IR gevproxy@NAME.service .
.TP
.I /var/lib/gevproxy
Dead letters: jobs that could not be passed on.
.TP
.I /run/gevproxy/control.sock
Where the running daemon takes its orders, for root and the user gevproxy.
.TP
.I /usr/share/gevproxy/config.schema.json
The JSON Schema of the configuration, for editors.
.SH ENVIRONMENT
.TP
.B CREDENTIALS_DIRECTORY, STATE_DIRECTORY, RUNTIME_DIRECTORY
Set by systemd for a unit: keys named
.IR credential:NAME ,
dead letters, and the control socket.
.SH SIGNALS
.TP
.B SIGTERM, SIGINT
Stop in order: take no more jobs, wait for the confirmations. A second one closes at once.
.TP
.B SIGHUP
Read the configuration again.
.B systemctl reload
does so too, and says whether it was accepted.
.TP
.B SIGUSR1
Write facts and counters of every forward to the log.
.SH SEE ALSO
.BR gevproxy.json (5),
.BR gearmand (8),
.BR gearadmin (1),
.BR systemctl (1)
"""


def command_page(program: Command, version: str, date: str) -> str:
    """Return gevproxy(1)."""
    lines = [
        _title("GEVPROXY", 1, version, date),
        ".SH NAME",
        f"gevproxy \\- {_text(program.help.rstrip('.'))}",
        ".SH SYNOPSIS",
        *list(_synopsis(program))[:-1],
        TOP.rstrip("\n"),
        ".SH OPTIONS",
        *_arguments(program.options),
        ".SH COMMANDS",
    ]
    for command in [each for each in program.walk() if each is not program]:
        lines += [f".SS {_text(' '.join(command.words[1:]))}", _sentence(command.help)]
        mine = [each for each in command.arguments if "--help" not in each.names]
        lines += _arguments(mine)
    return "\n".join([*lines, BOTTOM])


def _synopsis(program: Command) -> Iterator[str]:
    for command in program.walk():
        if not command.children:
            yield f".B {_text(' '.join(command.words))}"
            rest = command.usage.removeprefix(" ".join(command.words)).removeprefix(" [-h]").strip()
            if rest:
                yield _text(rest)
            yield ".br"


def _arguments(arguments: Iterable[Argument]) -> Iterator[str]:
    for argument in arguments:
        value = f" \\fI{_text(argument.value)}\\fR" if argument.value else ""
        names = ", ".join(f"\\fB{_text(name)}\\fR" for name in argument.names)
        yield ".TP"
        yield f"{names}{value}" if names else value.lstrip()
        yield _sentence(argument.help)


def config_page(schema: Mapping[str, Any], version: str, date: str) -> str:
    """Return gevproxy.json(5)."""
    properties = {k: v for k, v in schema["properties"].items() if k not in NOTES}
    forward = schema["$defs"]["forward"]
    options = {k: v for k, v in forward["properties"].items() if k not in NOTES}
    lines = [
        _title("GEVPROXY.JSON", 5, version, date),
        ".SH NAME",
        "gevproxy.json \\- configuration of the Gearman relay gevproxy",
        ".SH SYNOPSIS",
        ".I /etc/gevproxy/gevproxy.json",
        ".br",
        ".I /etc/gevproxy/conf.d/*.json",
        ".SH DESCRIPTION",
        _text(schema["description"]),
        ".PP",
        "Every object may also hold $comment and description, which are remarks for people, and",
        "$schema, for editors.",
        ".SH AT THE TOP OF A FILE",
        *_options(properties, schema),
        ".SH FOR EACH FORWARD",
        "These go into the object of a queue, and all but",
        ".B remote_queue",
        "into",
        ".BR defaults .",
        *_options(options, schema),
        ".SH EXAMPLES",
        "Two queues, one each way, and a forward with options:",
        *(line for example in schema["examples"] for line in _example(example)),
        *_example({"queues": {"127.0.0.1:4730/api": forward["examples"][-1]}}),
        ".SH SEE ALSO",
        ".BR gevproxy (1)",
    ]
    return "\n".join(lines) + "\n"


def _options(properties: Mapping[str, Any], schema: Mapping[str, Any]) -> Iterator[str]:
    for name, node in properties.items():
        resolved = _resolve(node, schema)
        yield ".TP"
        kind = _kind(resolved)
        yield f"\\fB{_text(name)}\\fR{f' ({_text(kind)})' if kind else ''}"
        yield _text(resolved["description"]) + _default(resolved)
        below = [key for key in resolved.get("properties", {}) if key not in NOTES]
        if below and name not in ("defaults", "queues"):
            yield ".RS"
            yield from _options({key: resolved["properties"][key] for key in below}, schema)
            yield ".RE"


def _resolve(node: Mapping[str, Any], schema: Mapping[str, Any]) -> Mapping[str, Any]:
    reference = node.get("$ref", "")
    name = str(reference).removeprefix("#/$defs/")
    return {**schema["$defs"][name], **node} if reference else node


def _kind(node: Mapping[str, Any]) -> str:
    if "enum" in node:
        return ", ".join(map(str, node["enum"]))
    kinds = node.get("type", [])
    return " or ".join([kinds] if isinstance(kinds, str) else kinds)


def _default(node: Mapping[str, Any]) -> str:
    """Say what holds where nothing is said, but for what the description says better."""
    if "default" not in node or node["default"] in ({}, []) or "Default:" in node["description"]:
        return ""
    return f" Default: {_text(json.dumps(node['default']))}."


def _example(value: object) -> Iterator[str]:
    yield ".PP"
    yield ".EX"
    yield from (_text(line) for line in json.dumps(value, indent=2).splitlines())
    yield ".EE"


def _title(name: str, section: int, version: str, date: str) -> str:
    return f'.TH {name} {section} {date} "gevproxy {version}"'


def _sentence(text: str) -> str:
    """Return a help text as a sentence."""
    end = "" if text.endswith((".", "?", "!")) else "."
    return f"{_text(text[:1].upper() + text[1:])}{end}" if text else ""


def _text(text: str) -> str:
    """Return text that roff takes literally; what stands in backquotes becomes bold."""
    safe = text.replace("\\", "\\e").replace("-", "\\-").replace("'", "\\(aq").replace("^", "\\(ha")
    safe = re.sub(r"`([^`]+)`", r"\\fB\1\\fR", safe)
    return f"\\&{safe}" if safe.startswith((".", "'")) else safe
