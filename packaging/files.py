# ruff: noqa: INP001 - a folder of scripts, not a package
"""Files of a package: unpacked from wheels, written, compressed and packed the same way each time.

Knows nothing of what is packed, nor of Debian.
"""

import gzip
import io
import re
import shutil
import tarfile
import zipfile
from pathlib import Path
from typing import Final

UNNEEDED: Final = re.compile(
    r"(^|/)(tests?|testing|SelfTest|benchmarks)/|\.(c|cc|cpp|h|hpp|pxd|pyx|pyi)$"
)
"""What wheels bring and a running program does not read: tests, sources and stubs."""


def unpack(wheel: Path, into: Path) -> None:
    """Unpack a wheel's modules and its metadata; commands and headers are left."""
    with zipfile.ZipFile(wheel) as archive:
        for name in sorted(archive.namelist()):
            parts = name.split("/")
            if parts[0].endswith(".data"):
                if parts[1] not in ("purelib", "platlib"):
                    continue
                parts = parts[2:]
            inside = "/".join(parts)
            if name.endswith("/") or UNNEEDED.search(inside):
                continue
            data = archive.read(name)
            if inside.endswith(".dist-info/RECORD"):
                lines = data.decode().splitlines(keepends=True)
                kept = [each for each in lines if not UNNEEDED.search(each.split(",")[0])]
                data = "".join(kept).encode()
            target = into / inside
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(data)


def write(path: Path, text: str) -> None:
    """Write a file, and make the folders above it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


def copy(source: Path, target: Path) -> None:
    """Copy a file, and make the folders above it."""
    target.parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(source, target)


def compress(path: Path) -> None:
    """Compress a file in place; neither name nor time go into it."""
    path.with_name(f"{path.name}.gz").write_bytes(gzip.compress(path.read_bytes(), 9, mtime=0))
    path.unlink()


def walk(tree: Path) -> list[Path]:
    """Return everything below a folder, in the order in which it is packed."""
    return sorted(tree.rglob("*"))


def mode(path: Path) -> int:
    """Return one of two modes, whatever the umask was where the file was made."""
    return 0o755 if path.is_dir() or path.stat().st_mode & 0o100 else 0o644


def tar(tree: Path, made: Path, epoch: int) -> None:
    """Pack a tree, with its name in front, the same way each time.

    In GNU's format, which has names of any length; USTAR's end at 100 characters and a prefix.
    """
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.GNU_FORMAT) as archive:
        for path in [tree, *walk(tree)]:
            info = archive.gettarinfo(path, arcname=str(path.relative_to(tree.parent)))
            info.uid = info.gid = 0
            info.uname = info.gname = "root"
            info.mtime, info.mode = epoch, mode(path)
            if path.is_file():
                with path.open("rb") as file:
                    archive.addfile(info, file)
            else:
                archive.addfile(info)
    made.write_bytes(gzip.compress(buffer.getvalue(), 9, mtime=0))
