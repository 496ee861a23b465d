"""The command line. Parses arguments and hands over; decides nothing itself."""

import argparse
import os
import sys
from collections.abc import Sequence
from dataclasses import replace

from gevproxy import (
    __version__,
    config,
    convert,
    daemon,
    dead_letters_command,
    demo,
    letter_folder,
    probe,
    rights,
    status_command,
)
from gevproxy.errors import ConfigError
from gevproxy.supervisor import make_plan

_EXIT_USAGE = 2
"""As argparse has it: the command line cannot be carried out as it is written."""


def build_parser() -> argparse.ArgumentParser:
    """Return the parser of all commands."""
    parser = argparse.ArgumentParser(
        prog="gevproxy",
        description="A Gearman relay: takes jobs from queues of one gearmand and submits them to "
        "another, losing none.",
    )
    parser.add_argument("--version", action="version", version=f"gevproxy {__version__}")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")

    run = commands.add_parser("run", help="run the relay in the foreground, as a service does")
    _add_config(run)
    run.add_argument(
        "--logfile",
        metavar="stdout|stderr|PATH",
        help="where the log goes (default: log_file of the configuration, else stderr)",
    )
    run.add_argument("--debug", action="store_true", help="write a record for each job")
    run.set_defaults(act=_run)

    _add_check(commands.add_parser("check", help="check the configuration and change nothing"))

    schema = commands.add_parser("schema", help="print the JSON Schema of the configuration")
    schema.set_defaults(act=_schema)

    convert.add_arguments(
        commands.add_parser("convert", help="convert the configuration of gearman_proxy.pl")
    )

    dead_letters_command.add_arguments(
        commands.add_parser("dead-letters", help="look at refused jobs, replay or purge them")
    )

    for command, text in status_command.COMMANDS.items():
        status_command.add_arguments(commands.add_parser(command, help=text), command)

    show = commands.add_parser("demo", help="show the relay at work between two job servers here")
    demo.add_arguments(show)
    show.set_defaults(act=demo.main)
    return parser


def _add_check(check: argparse.ArgumentParser) -> None:
    _add_config(check)
    check.add_argument(
        "--connect",
        action="store_true",
        help="also connect to both ends of every forward and ping them: is the firewall open?",
    )
    check.add_argument(
        "--as",
        dest="user",
        metavar="USER",
        help="check with the rights of this user, as root: can the daemon read its keys and "
        "callbacks? Credentials are taken as given: only the unit has them",
    )
    check.set_defaults(act=_check)


def _add_config(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--config",
        action="append",
        metavar="PATH",
        help="a file, or a folder whose *.json are read in name order; may be given many times "
        "(default: /etc/gevproxy/gevproxy.json and /etc/gevproxy/conf.d)",
    )


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command; return the exit code."""
    arguments = build_parser().parse_args(argv)
    try:
        return int(arguments.act(arguments))
    except BrokenPipeError:
        # The reader of our output has gone (`gevproxy schema | head`).
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1


def _run(arguments: argparse.Namespace) -> int:
    def load() -> config.Config:
        loaded = config.load(arguments.config, environ=os.environ)
        return replace(
            loaded,
            log_file=arguments.logfile or loaded.log_file,
            debug=arguments.debug or loaded.debug,
        )

    return daemon.run(load)


def _check(arguments: argparse.Namespace) -> int:
    environ: dict[str, str] = dict(os.environ)
    if arguments.user is not None:
        try:
            rights.become(arguments.user)
        except rights.RightsError as error:
            print(f"gevproxy: --as {arguments.user}: {error}", file=sys.stderr)
            return _EXIT_USAGE
        environ.setdefault(config.CREDENTIALS_FOLDER, config.ELSEWHERE)
    try:
        loaded = config.load(arguments.config, environ=environ)
        plan = make_plan(loaded, environ)
        warnings = config.key_warnings(loaded, environ=environ)
        if loaded.dead_letters and (warning := letter_folder.warning(loaded.dead_letters)):
            warnings.append(warning)
    except ConfigError as error:
        for problem in error.problems:
            print(problem, file=sys.stderr)
        return daemon.EXIT_CONFIG
    print(f"ok: {len(loaded.forwards)} forwards")
    for warning in warnings:
        print(f"warning: {warning}")
    if environ.get(config.CREDENTIALS_FOLDER) == config.ELSEWHERE:
        for name in config.credentials(loaded):
            print(f"note: credential:{name} is unverifiable outside the unit")
    if not arguments.connect:
        return 0
    lines, well = probe.report(loaded, plan.tls)
    print(*lines, sep="\n")
    return 0 if well else 1


def _schema(arguments: argparse.Namespace) -> int:
    del arguments
    sys.stdout.write(config.schema_text())
    return 0
