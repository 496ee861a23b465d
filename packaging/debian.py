# ruff: noqa: INP001 - a folder of scripts, not a package
"""What makes a tree of files a package of Debian: releases, documents, and the settings of nfpm."""

import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Final

from files import compress, copy, mode, walk, write

HERE: Final = Path(__file__).resolve().parent
ROOT: Final = HERE.parent

PREFIX: Final = Path("usr/lib/gevproxy")
"""Where a package has its private environment."""

MAINTAINER: Final = "The gevproxy authors <gevproxy@packages.invalid>"
"""A name and an address are asked for; gevproxy has no mailbox, and .invalid says so."""

DESCRIPTION: Final = """Gearman relay that loses no jobs
gevproxy takes jobs from queues of one gearmand and submits them to another,
and completes them at the source only after the target has confirmed them. It
runs where two networks meet and only one side may open connections, above all
for Naemon with Mod-Gearman."""


@dataclass(frozen=True, slots=True)
class Release:
    """A Debian release: what a package for it is built from."""

    number: str
    name: str
    python: str  # the version of its Python
    glibc: int  # the minor version of its C library, which says what binary wheels it can run


RELEASES: Final = (Release("12", "bookworm", "3.11", 36), Release("13", "trixie", "3.13", 41))
MACHINES: Final = {"amd64": "x86_64", "arm64": "aarch64"}


def documents(tree: Path, release: Release, version: str, date: datetime) -> None:
    """Write what a package of Debian has to have: changelog, copyright, compressed pages."""
    folder = tree / "usr/share/doc/gevproxy"
    full = f"{version}+deb{release.number}"
    changelog = (
        f"gevproxy ({full}) {release.name}; urgency=medium\n\n"
        f"  * gevproxy {version}: what has changed is told in CHANGELOG.md.\n\n"
        f" -- {MAINTAINER}  {date:%a, %d %b %Y %H:%M:%S +0000}\n"
    )
    write(folder / "changelog", changelog)
    compress(folder / "changelog")
    for name in ("CHANGELOG.md", "README.md"):
        copy(ROOT / name, folder / name)
        compress(folder / name)
    for page in (tree / "usr/share/man").rglob("*.[0-9]"):
        compress(page)
    packages = tree / PREFIX / f"lib/python{release.python}/site-packages"
    write(folder / "copyright", copyright_text(packages))
    copy(HERE / "deb/lintian-overrides", tree / "usr/share/lintian/overrides/gevproxy")


def settings(tree: Path, release: Release, arch: str, version: str, date: datetime) -> str:
    """Return what nfpm makes the package of: every path, with fixed owner, mode and time."""
    told = {
        "name": "gevproxy",
        "arch": arch,
        "version": version,
        "version_schema": "none",
        "section": "net",
        "priority": "optional",
        "maintainer": MAINTAINER,
        "description": DESCRIPTION,
        "license": "MIT",
        "mtime": f"{date:%Y-%m-%dT%H:%M:%SZ}",
        "disable_globbing": True,
        "depends": [
            f"python{release.python}",
            f"libc6 (>= 2.{release.glibc})",
            "libgcc-s1",
            "libstdc++6",
            "systemd | systemd-standalone-sysusers",
            "systemd | systemd-standalone-tmpfiles",
            "init-system-helpers (>= 1.52)",
        ],
        "suggests": ["gearman-job-server", "gearman-tools", "jq"],
        "scripts": {
            "postinstall": str(HERE / "deb/postinst"),
            "preremove": str(HERE / "deb/prerm"),
            "postremove": str(HERE / "deb/postrm"),
        },
        "deb": {"compression": "xz"},
        "contents": list(_contents(tree)),
    }
    return json.dumps(told)  # JSON is YAML


def _contents(tree: Path) -> Iterator[dict[str, object]]:
    """Yield every path of a tree as nfpm wants it."""
    for path in walk(tree):
        target = f"/{path.relative_to(tree)}"
        if path.is_symlink():
            # The mode too, or nfpm takes that of a file of this machine where the link leads.
            link = {"src": str(path.readlink()), "type": "symlink"}
            yield {"dst": target, **link, "file_info": {"mode": 0o777}}
        elif path.is_file():
            yield {"dst": target, "src": str(path), "file_info": {"mode": mode(path)}}
        elif not any(path.iterdir()) or target.startswith(f"/{PREFIX}"):
            yield {"dst": target, "type": "dir", "file_info": {"mode": 0o755}}


def copyright_text(packages: Path) -> str:
    """Return Debian's copyright file: our licence, and where that of each dependency is."""
    from packaging.metadata import Metadata  # noqa: PLC0415 - a tool: see main

    licence = "".join(
        f" {line}\n" if line.strip() else " .\n"
        for line in (ROOT / "LICENSE").read_text().splitlines()
        if not line.startswith(("MIT License", "Copyright"))
    ).removeprefix(" .\n")
    text = (
        "Format: https://www.debian.org/doc/packaging-manuals/copyright-format/1.0/\n"
        "Upstream-Name: gevproxy\n\n"
        "Files: *\nCopyright: 2026 the gevproxy authors\nLicense: MIT\n\n"
    )
    names = set()
    for info in sorted(packages.glob("*.dist-info")):
        if info.name.startswith("gevproxy-"):
            continue
        data = Metadata.from_email((info / "METADATA").read_bytes(), validate=False)
        licence_name = _licence_name(data.license_expression, data.license, data.classifiers)
        names.add(licence_name)
        folder = f"/{PREFIX}/{info.relative_to(packages.parents[2])}"
        author = (data.author or data.author_email or data.maintainer or "its authors").strip()
        text += (
            f"Files: {PREFIX}/lib/*/site-packages/{data.name.replace('-', '_')}*\n"
            f"Copyright: {author}\nLicense: {licence_name}\n"
            f"Comment: {data.name} {data.version}; see {folder}\n\n"
        )
    text += f"License: MIT\n{licence}"
    for name in sorted(names - {"MIT"}):
        text += f"\nLicense: {name}\n The text is in the folder that is named above.\n"
    return text


def _licence_name(
    expression: str | None, text: str | None, classifiers: Sequence[str] | None
) -> str:
    """Return the short name of a licence, from whichever field of its metadata has it."""
    if expression:
        return expression.replace(" ", "-")
    named = [each.rpartition(":: ")[2] for each in classifiers or () if "License ::" in each]
    name = named[0] if named else (text or "unknown").splitlines()[0]
    return "MIT" if name in ("MIT", "MIT License") else re.sub(r"[^\w.+-]+", "-", name)
