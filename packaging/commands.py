# ruff: noqa: INP001 - a folder of scripts, not a package
"""What the man page and the completions need to know of the command line, read from its parser.

The one place that touches argparse's inner attributes. Writes nothing.
"""

import argparse
from collections.abc import Iterator
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Argument:
    """An option, or with no names a positional argument."""

    names: tuple[str, ...]
    value: str  # what is to be given, as the help shows it; "" for a switch
    choices: tuple[str, ...]
    help: str

    @property
    def takes_path(self) -> bool:
        """Whether a file name can be given."""
        return any(word in self.value.upper() for word in ("PATH", "FILE", "FOLDER", "DIR"))


@dataclass(frozen=True, slots=True)
class Command:
    """A command; the first is the program itself. `words` are what is typed to get there."""

    words: tuple[str, ...]
    help: str
    usage: str
    arguments: tuple[Argument, ...]
    children: tuple["Command", ...]

    @property
    def options(self) -> tuple[Argument, ...]:
        """The arguments with a name."""
        return tuple(argument for argument in self.arguments if argument.names)

    def walk(self) -> Iterator["Command"]:
        """Yield this one and all below, depth first."""
        yield self
        for child in self.children:
            yield from child.walk()


def read(
    parser: argparse.ArgumentParser, words: tuple[str, ...] = (), text: str | None = None
) -> Command:
    """Return what a parser understands, commands below it included."""
    words = words or (parser.prog,)
    children: list[Command] = []
    arguments: list[Argument] = []
    for action in parser._actions:  # noqa: SLF001 - argparse has no other way to ask
        if isinstance(action, argparse._SubParsersAction):  # noqa: SLF001 - the same
            helps = {choice.dest: choice.help for choice in action._choices_actions}  # noqa: SLF001
            children += [
                read(below, (*words, name), helps[name])
                for name, below in action.choices.items()
                if helps.get(name, argparse.SUPPRESS) != argparse.SUPPRESS
            ]
        elif action.help != argparse.SUPPRESS:
            arguments.append(_argument(action))
    usage = " ".join(parser.format_usage().removeprefix("usage: ").split())
    help_ = text or parser.description or ""
    return Command(words, help_, usage, tuple(arguments), tuple(children))


def _argument(action: argparse.Action) -> Argument:
    choices = tuple(str(choice) for choice in action.choices or ())
    value = ""
    if action.nargs != 0:
        metavar = action.metavar
        if isinstance(metavar, tuple):
            metavar = " ".join(metavar)
        value = metavar or ("|".join(choices) if choices else action.dest.upper())
    text = str(action.help or "") % {**vars(action), "prog": "gevproxy"}
    return Argument(tuple(action.option_strings), value, choices, text)
