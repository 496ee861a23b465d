#!/usr/bin/env python3
"""Build what gevproxy is shipped as, into dist/: a .deb per Debian release, and the wheelhouse.

    packaging/build.py deb [--release 12|13] [--arch amd64|arm64] [--version VERSION]
    packaging/build.py wheelhouse [--arch amd64|arm64]

A .deb is self-contained: a private environment under /usr/lib/gevproxy with every dependency at the
version that requirements.lock says. The wheelhouse is a tarball for hosts without an index: the
wheel, its locked dependencies for both releases, and the units.

Needs a Python 3.11 or later with venv and pip, and an index; neither Debian nor the release's own
Python. The same commit gives the same bytes on the same Python: times are those of the commit
($SOURCE_DATE_EPOCH where there is no git), modes and order are fixed, and nothing is compiled here.
What is in the work tree is what is built.
"""

import argparse
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from collections.abc import Set as AbstractSet
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from typing import Final, cast

import debian
from debian import MACHINES, PREFIX, RELEASES, Release
from files import copy, tar, unpack, write

ROOT: Final = Path(__file__).resolve().parents[1]
HERE: Final = ROOT / "packaging"
DIST: Final = ROOT / "dist"
TOOLS: Final = DIST / ".tools"
LOCK: Final = HERE / "requirements.lock"
TOOLS_FROM: Final = "# --- what builds the packages ---"

WHEELHOUSE_PREFIX: Final = "/opt/gevproxy"
"""Where the wheelhouse's README and units have it."""

SCHEMA_PATH: Final = "/usr/share/gevproxy/config.schema.json"
"""Where a package has it."""

ONLY_AS_SOURCE: Final = ("sdnotify==",)
"""Published without a wheel; pure Python."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Build what was asked for; print the path of each file that was made."""
    parser = argparse.ArgumentParser(description=str(__doc__).partition("\n")[0])
    verbs = parser.add_subparsers(dest="verb", required=True)
    deb, wheelhouse = (verbs.add_parser(verb) for verb in ("deb", "wheelhouse"))
    for verb in (deb, wheelhouse):
        verb.add_argument("--arch", choices=MACHINES, default="amd64")
        verb.add_argument("--into", type=Path, default=DIST, help="folder (default: dist)")
    deb.add_argument("--release", choices=[each.number for each in RELEASES], help="default: all")
    deb.add_argument("--version", help="call it that (default: the version of the program)")
    options = parser.parse_args(arguments)
    if sys.prefix != str(TOOLS):
        return _run_with_tools(sys.argv[1:] if arguments is None else arguments)
    os.umask(0o022)
    os.environ["SOURCE_DATE_EPOCH"] = str(_epoch())
    options.into.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as scratch:
        builder = Builder(Path(scratch), options.arch)
        if options.verb == "wheelhouse":
            made = [builder.wheelhouse(options.into)]
        else:
            wanted = [each for each in RELEASES if options.release in (None, each.number)]
            made = [builder.deb(each, options.into, options.version) for each in wanted]
    for file in made:
        print(file)  # noqa: T201 - the answer of a command
    return 0


# --- Tools ---------------------------------------------------------------------------------------


def _run_with_tools(arguments: Sequence[str]) -> int:
    """Run this script with the locked tools, which are installed where they are missing."""
    stamp = TOOLS / "requirements.lock"
    if not stamp.exists() or stamp.read_bytes() != LOCK.read_bytes():
        subprocess.run([sys.executable, "-m", "venv", "--clear", TOOLS], check=True)
        shipped, tools = LOCK.read_text().split(TOOLS_FROM)
        # The tools first: what comes as source is built with them and not with anything else.
        for part in (tools, shipped):
            _pip("install", "--no-build-isolation", "--use-pep517", requirements=part)
        shutil.copyfile(LOCK, stamp)
    return subprocess.run([TOOLS / "bin/python", __file__, *arguments], check=False).returncode


def _pip(verb: str, *options: str | Path, requirements: str | None = None) -> None:
    """Run pip; `requirements` is text, and each of them must have its hash."""
    command = [TOOLS / "bin/python", "-m", "pip", "--quiet", verb, "--no-deps", *options]
    with tempfile.NamedTemporaryFile("w", suffix=".txt") as file:
        if requirements is not None:
            file.write(requirements)
            file.flush()
            command += ["--require-hashes", "--requirement", file.name]
        # stdout is for the paths of what was made
        subprocess.run(command, check=True, stdout=sys.stderr)


@cache
def _epoch() -> int:
    """Return the time of the commit, which everything is dated with."""
    if given := os.environ.get("SOURCE_DATE_EPOCH"):
        return int(given)
    command = ["git", "-C", str(ROOT), "log", "-1", "--format=%ct"]
    done = subprocess.run(command, check=False, capture_output=True, text=True)
    if done.returncode:
        raise SystemExit("no git here: say with SOURCE_DATE_EPOCH=SECONDS what to date files with")
    return int(done.stdout)


def _date() -> datetime:
    return datetime.fromtimestamp(_epoch(), UTC)


# --- Building ------------------------------------------------------------------------------------


class Builder:
    """Builds in a scratch folder, for one kind of machine."""

    def __init__(self, scratch: Path, arch: str) -> None:
        self.scratch = scratch
        self.arch = arch
        self.ours = self._our_wheel()
        self.version = self.ours.name.split("-")[1]

    def _our_wheel(self) -> Path:
        folder = self.scratch / "ours"
        _pip("wheel", "--no-build-isolation", "--wheel-dir", folder, ROOT)
        return next(folder.glob("gevproxy-*.whl"))

    def wheels(self, release: Release) -> Path:
        """Return a folder with every wheel for that release's Python, ours too."""
        folder = self.scratch / f"wheels-{release.number}"
        folder.mkdir(exist_ok=True)
        shutil.copy(self.ours, folder)
        machine = MACHINES[self.arch]
        abi = f"cp{release.python.replace('.', '')}"
        target = [
            *("--python-version", release.python, "--implementation", "cp"),
            *(word for each in (abi, "abi3", "none") for word in ("--abi", each)),
            # Every wheel that this release's C library can run: PEP 600, and the older name.
            *("--platform", f"manylinux2014_{machine}"),
            *(
                word
                for minor in range(17, release.glibc + 1)
                for word in ("--platform", f"manylinux_2_{minor}_{machine}")
            ),
        ]
        lines = list(_shipped(release))
        binary = [each for each in lines if not each.startswith(ONLY_AS_SOURCE)]
        source = [each for each in lines if each.startswith(ONLY_AS_SOURCE)]
        _pip(
            *("download", "--only-binary", ":all:", "--dest", folder),
            *target,
            requirements="\n".join(binary),
        )
        _pip(
            *("wheel", "--no-build-isolation", "--use-pep517", "--wheel-dir", folder),
            requirements="\n".join(source),
        )
        return folder

    def wheelhouse(self, into: Path) -> Path:
        """Make the tarball for hosts without an index."""
        name = f"gevproxy-{self.version}-wheelhouse-{MACHINES[self.arch]}"
        tree = self.scratch / name
        (tree / "wheels").mkdir(parents=True)
        for release in RELEASES:
            for wheel in self.wheels(release).iterdir():
                shutil.copy(wheel, tree / "wheels")
        shutil.copy(HERE / "wheelhouse.md", tree / "README.md")
        self._documents(tree, prefix=Path())
        for unit in (tree / "lib/systemd/system").iterdir():
            command = f"{WHEELHOUSE_PREFIX}/bin/gevproxy"
            unit.write_text(unit.read_text().replace("/usr/bin/gevproxy", command))
        made = into / f"{name}.tar.gz"
        tar(tree, made, _epoch())
        return made

    def deb(self, release: Release, into: Path, version: str | None) -> Path:
        """Make the package for a release."""
        tree = self.scratch / f"deb-{release.number}"
        self._environment(tree, release)
        self._documents(tree, prefix=Path("usr"))
        debian.documents(tree, release, version or self.version, _date())
        (tree / "etc/gevproxy/conf.d").mkdir(parents=True)
        full = f"{version or self.version}+deb{release.number}"
        made = into / f"gevproxy_{full}_{self.arch}.deb"
        config = self.scratch / "nfpm.json"
        config.write_text(debian.settings(tree, release, self.arch, full, _date()))
        made.unlink(missing_ok=True)
        options: list[str | Path] = ["--config", config, "--target", made]
        nfpm = [TOOLS / "bin/nfpm", "package", "--packager", "deb", *options]
        subprocess.run(nfpm, check=True, stdout=sys.stderr)
        return made

    def _environment(self, tree: Path, release: Release) -> None:
        """Lay out a virtual environment of the release's own Python, and fill it from wheels."""
        prefix = tree / PREFIX
        packages = prefix / f"lib/python{release.python}/site-packages"
        packages.mkdir(parents=True)
        for wheel in sorted(self.wheels(release).iterdir()):
            unpack(wheel, packages)
        (prefix / "bin").mkdir()
        (prefix / "bin/python").symlink_to(f"../../../bin/python{release.python}")
        (prefix / "pyvenv.cfg").write_text(
            f"home = /usr/bin\ninclude-system-site-packages = false\nversion = {release.python}\n"
        )
        command = prefix / "bin/gevproxy"
        # -P: nothing is imported from beside the command. PYTHONPATH counts: it is where a
        # `data_callback` named "module:function" comes from.
        command.write_text(
            f"#!/{PREFIX}/bin/python -P\n"
            "import sys\n\nfrom gevproxy.__main__ import main\n\nsys.exit(main())\n"
        )
        command.chmod(0o755)
        (tree / "usr/bin").mkdir()
        (tree / "usr/bin/gevproxy").symlink_to("../lib/gevproxy/bin/gevproxy")

    def _documents(self, tree: Path, prefix: Path) -> None:
        """Write units, man pages, completions, schemas and examples."""
        lib, share = tree / prefix / "lib", tree / prefix / "share"
        for source, target in (
            (ROOT / "systemd/sysusers.d", lib / "sysusers.d"),
            (ROOT / "systemd/tmpfiles.d", lib / "tmpfiles.d"),
            (ROOT / "systemd/examples", share / "doc/gevproxy/examples"),
        ):
            shutil.copytree(source, target)
        for unit in (ROOT / "systemd").glob("*.service"):
            copy(unit, lib / "systemd/system" / unit.name)
        for name in ("grafana", "prometheus"):
            shutil.copytree(HERE / name, share / "gevproxy" / name)
        copy(HERE / "example.json", share / "doc/gevproxy/examples/gevproxy.json")
        for example in (ROOT / "schema/examples").glob("*.json"):
            text = example.read_text().replace("../config.schema.json", SCHEMA_PATH)
            write(share / "doc/gevproxy/examples" / example.name, text)
        for schema in (ROOT / "schema").glob("*.json"):
            copy(schema, share / "gevproxy" / schema.name)
        self._generated(share)

    def _generated(self, share: Path) -> None:
        """Write what is made from the parser and the schema."""
        unpack(self.ours, self.scratch / "program")
        environment = {**os.environ, "PYTHONPATH": f"{self.scratch / 'program'}:{HERE}"}
        done = subprocess.run(
            [sys.executable, "-c", GENERATE, self.version, f"{_date():%Y-%m-%d}"],
            env=environment,
            check=True,
            stdout=subprocess.PIPE,
            text=True,
        )
        for path, text in json.loads(done.stdout).items():
            write(share / path, text)


GENERATE: Final = """
import json, sys
import gevproxy.__main__  # patches before anything else is imported
import commands, completions, manpages
from gevproxy.cli import build_parser
from gevproxy.config import schema_text

version, date = sys.argv[1:]
program = commands.read(build_parser())
print(json.dumps({
    "man/man1/gevproxy.1": manpages.command_page(program, version, date),
    "man/man5/gevproxy.json.5": manpages.config_page(json.loads(schema_text()), version, date),
    "bash-completion/completions/gevproxy": completions.bash(program),
    "zsh/vendor-completions/_gevproxy": completions.zsh(program),
    "fish/vendor_completions.d/gevproxy.fish": completions.fish(program),
}))
"""
"""Run in a process of its own, with the wheel on the path: what it imports is what is shipped."""


def _shipped(release: Release) -> Iterator[str]:
    """Yield the locked requirements of that release's Python, each with its hashes."""
    from packaging.markers import default_environment  # noqa: PLC0415 - a tool: see main
    from packaging.requirements import Requirement  # noqa: PLC0415 - the same

    environment: dict[str, str | AbstractSet[str]] = {
        **cast("dict[str, str]", default_environment()),
        "implementation_name": "cpython",
        "platform_python_implementation": "CPython",
        "python_full_version": f"{release.python}.0",
        "python_version": release.python,
        "sys_platform": "linux",
    }
    text = LOCK.read_text().split(TOOLS_FROM)[0].replace("\\\n", "")
    for line in text.splitlines():
        if line and not line.startswith("#"):
            words, *hashes = re.split(r"\s+--hash=", line.strip())
            requirement = Requirement(words)
            if requirement.marker is None or requirement.marker.evaluate(environment):
                pinned = f"{requirement.name}{requirement.specifier}"
                yield " ".join([pinned, *(f"--hash={each.strip()}" for each in hashes)])


if __name__ == "__main__":
    sys.exit(main())
