"""Test beds by hand: they stay until they are taken down.

python -m tests.appliance deps                    install what beds need, by apt
python -m tests.appliance build [SUITE ...]       make the root file systems, once
python -m tests.appliance up NAME [SUITE] [--net none|veth|nat]
python -m tests.appliance run NAME COMMAND...     fast: in the host's cgroup, by nsenter
python -m tests.appliance exec NAME COMMAND...    as PID 1 would: in a transient unit
python -m tests.appliance reboot|down|ip NAME
python -m tests.appliance prune                   take down what killed tests left behind
"""

import argparse
import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import get_args

from tests.appliance.bed import Bed, Net, prune
from tests.appliance.roots import HOST_PACKAGES, NEEDED, SUITES, BedError, build


def _deps() -> None:
    """Install what is missing; apt says on the screen what it does."""
    if all(map(shutil.which, NEEDED)):
        return
    environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    apt = ["apt-get", "-q", "-o", "Acquire::Retries=3"]
    install = [*apt, "install", "-y", "--no-install-recommends", *HOST_PACKAGES]
    for command in ([*apt, "update"], install):
        if subprocess.run(command, env=environment, check=False).returncode:
            raise BedError(f"{' '.join(command)} failed")


def main(arguments: Sequence[str] | None = None) -> int:
    """Carry out one command; return its exit code."""
    parser = argparse.ArgumentParser(
        prog="tests.appliance", description=str(__doc__).partition("\n")[0]
    )
    verbs = parser.add_subparsers(dest="verb", required=True)
    verbs.add_parser("deps")
    verbs.add_parser("prune")
    verbs.add_parser("build").add_argument("suites", nargs="*", default=SUITES)
    up = verbs.add_parser("up")
    up.add_argument("name")
    up.add_argument("suite", nargs="?", default=SUITES[0])
    up.add_argument("--net", choices=get_args(Net), default="veth")
    for verb in ("reboot", "down", "ip"):
        verbs.add_parser(verb).add_argument("name")
    for verb in ("run", "exec"):
        within = verbs.add_parser(verb)
        within.add_argument("name")
        within.add_argument("command", nargs=argparse.REMAINDER)
    options = parser.parse_args(arguments)
    try:
        return _act(options)
    except (BedError, AssertionError) as error:
        sys.stderr.write(f"tests.appliance: {error}\n")
        return 1


def _act(options: argparse.Namespace) -> int:
    verb = options.verb
    if verb == "deps":
        _deps()
    elif verb == "prune":
        prune()
    elif verb == "build":
        with ThreadPoolExecutor() as pool:  # mostly they wait for the network and the disk
            for root in pool.map(build, options.suites):
                sys.stdout.write(f"{root}\n")
    elif verb == "up":
        bed = Bed.up(options.name, options.suite, options.net)
        sys.stdout.write(f"{bed.name} {bed.suite} leader={bed.leader} ip={bed.facts.get('ip')}\n")
    elif verb == "reboot":
        Bed(options.name).reboot()
    elif verb == "down":
        Bed(options.name).down()
    elif verb == "ip":
        sys.stdout.write(f"{Bed(options.name).ip}\n")
    else:
        unit = ["systemd-run", "--quiet", "--pipe", "--wait", "--collect", "--"]
        command = [*(unit if verb == "exec" else []), *options.command]
        return Bed(options.name).start(*command).wait()
    return 0


if __name__ == "__main__":
    sys.exit(main())
