# ruff: noqa: INP001 - a folder of scripts, not a package
"""Completions for bash, zsh and fish, made from the parser of the command line. Writes nothing.

Bash and zsh share one way: the words typed so far name a command, and a table tells what may follow
it. Fish has its own, declarative.
"""

from collections.abc import Iterator
from typing import Final

from commands import Argument, Command

FIND_COMMAND: Final = """\
    local command=gevproxy word
    for word in "${{words[@]:1:{last}}}"; do
        case "$command $word" in
            {all}) command="$command $word" ;;
        esac
    done
"""


def bash(program: Command) -> str:
    """Return the completion for bash; names of files come from bash itself."""
    finding = FIND_COMMAND.format(last="COMP_CWORD-1", all=_pattern(program))
    lines = [
        "# bash completion for gevproxy, made from its parser",
        "_gevproxy() {",
        '    local words=("${COMP_WORDS[@]}") current=${COMP_WORDS[COMP_CWORD]}',
        "    local before=${COMP_WORDS[COMP_CWORD-1]} candidates=''",
        finding.rstrip("\n"),
        '    case "$command $before" in',
    ]
    for command in program.walk():
        for option in command.options:
            if option.value:
                pattern = "|".join(f'"{" ".join(command.words)} {name}"' for name in option.names)
                lines.append(f"        {pattern}) {_bash_value(option)} ;;")
    lines += ["    esac", '    case "$command" in']
    for command in program.walk():
        words = [child.words[-1] for child in command.children]
        words += [name for option in command.options for name in option.names]
        line = f'        "{" ".join(command.words)}") candidates="{" ".join(words)}" ;;'
        lines.append(line)
    lines += [
        "    esac",
        '    mapfile -t COMPREPLY < <(compgen -W "$candidates" -- "$current")',
        "}",
        "complete -o bashdefault -o default -F _gevproxy gevproxy",
    ]
    return "\n".join(lines) + "\n"


def _bash_value(option: Argument) -> str:
    """Return what completes a value: choices, or nothing, so that bash offers files."""
    words = _words(option)
    if option.takes_path and not words:
        return "COMPREPLY=(); return"
    return f'mapfile -t COMPREPLY < <(compgen -W "{" ".join(words)}" -- "$current"); return'


def zsh(program: Command) -> str:
    """Return the completion for zsh, with what each word means."""
    finding = FIND_COMMAND.format(last="CURRENT-2", all=_pattern(program))
    lines = [
        "#compdef gevproxy",
        "# zsh completion for gevproxy, made from its parser",
        "_gevproxy() {",
        finding.rstrip("\n"),
        "    local -a commands",
        '    case "$command $words[CURRENT-1]" in',
    ]
    for command in program.walk():
        for option in command.options:
            if option.value:
                pattern = "|".join(f'"{" ".join(command.words)} {name}"' for name in option.names)
                lines.append(f"        {pattern}) {_zsh_value(option)}; return ;;")
    lines += ["    esac", '    case "$command" in']
    for command in program.walk():
        pairs = [(child.words[-1], child.help) for child in command.children]
        pairs += [(name, option.help) for option in command.options for name in option.names]
        described = " ".join(_zsh_quote(f"{name}:{text}") for name, text in pairs)
        lines.append(f'        "{" ".join(command.words)}") commands=({described}) ;;')
    lines += ["    esac", "    _describe 'gevproxy' commands", "}", '_gevproxy "$@"']
    return "\n".join(lines) + "\n"


def _zsh_value(option: Argument) -> str:
    words = _words(option)
    offer = f"compadd -- {' '.join(words)}" if words else ""
    return "; ".join(filter(None, [offer, "_files" if option.takes_path else ""])) or ":"


def _zsh_quote(text: str) -> str:
    return "'" + text.replace("'", "'\\''") + "'"


def fish(program: Command) -> str:
    """Return the completion for fish."""
    lines = ["# fish completion for gevproxy, made from its parser", "complete -c gevproxy -f"]
    for command in program.walk():
        condition = _fish_condition(command)
        lines += [
            f"complete -c gevproxy -n {condition} -a {child.words[-1]} -d {_fish_quote(child.help)}"
            for child in command.children
        ]
        for option in command.options:
            names = " ".join(_fish_name(name) for name in option.names)
            lines.append(
                f"complete -c gevproxy -n {condition} {names}{_fish_value(option)} "
                f"-d {_fish_quote(option.help)}"
            )
    return "\n".join(lines) + "\n"


def _fish_condition(command: Command) -> str:
    words = command.words[1:]
    said = [f"__fish_seen_subcommand_from {word}" for word in words]
    below = " ".join(child.words[-1] for child in command.children)
    if below:
        said.append(f"not __fish_seen_subcommand_from {below}")
    return _fish_quote("; and ".join(said))


def _fish_name(name: str) -> str:
    return f"-l {name[2:]}" if name.startswith("--") else f"-s {name[1:]}"


def _fish_value(option: Argument) -> str:
    if not option.value:
        return ""
    words = _words(option)
    offer = f" -a {_fish_quote(' '.join(words))}" if words else ""
    return f" -r{' -F' if option.takes_path else ''}{offer}"


def _fish_quote(text: str) -> str:
    return "'" + text.replace("\\", "\\\\").replace("'", "\\'") + "'"


def _words(option: Argument) -> list[str]:
    """Return the values that are known: choices, and lower-case words in what the help shows."""
    return list(option.choices) or [word for word in option.value.split("|") if word.islower()]


def _pattern(program: Command) -> str:
    return "|".join(_patterns(program))


def _patterns(program: Command) -> Iterator[str]:
    for command in program.walk():
        if command is not program:
            yield f'"{" ".join(command.words)}"'
