"""From paths to a Config: find, read, schema, merge, logical checks, build.

Each step collects its problems and the next goes on with what is left, so that a person sees all
of them at once. Nothing outside is changed: folders are not made, callbacks not imported.
"""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from gevproxy.config.build import build
from gevproxy.config.checks import logical_problems
from gevproxy.config.merge import Merged, merge
from gevproxy.config.model import Config
from gevproxy.config.schema import schema_problems
from gevproxy.config.source import Document, read
from gevproxy.errors import ConfigError, Problem

DEFAULT_PATHS = (Path("/etc/gevproxy/gevproxy.json"), Path("/etc/gevproxy/conf.d"))
"""Read where no path is given, as far as they exist."""


def load(
    paths: Sequence[str | Path] | None,
    *,
    environ: Mapping[str, str],
    default_paths: Sequence[Path] = DEFAULT_PATHS,
) -> Config:
    """Read files and folders (`*.json` in name order) and merge them into one Config.

    None (or no path at all) reads `default_paths`. `environ` is asked for $CREDENTIALS_DIRECTORY,
    $STATE_DIRECTORY, $XDG_STATE_HOME and $HOME. Raises ConfigError with all problems: what cannot
    be read first, then what the schema says, then the logical ones, each in the files' order.
    """
    files, problems = _find([Path(path) for path in paths or ()], default_paths)
    documents, unreadable = _read(files)
    problems += unreadable
    merged, faults = _check(documents, environ, complete=not problems)
    problems += faults
    if problems:
        raise ConfigError(tuple(problems))
    return build(merged, environ)


def check(document: Document, environ: Mapping[str, str]) -> list[Problem]:
    """Return everything that is wrong with a configuration of one document."""
    return _check([document], environ, complete=True)[1]


def _find(named: Sequence[Path], default_paths: Sequence[Path]) -> tuple[list[Path], list[Problem]]:
    """Return the files to read, each once; a named path that leads to none is a problem."""
    files: dict[Path, Path] = {}
    problems: list[Problem] = []
    for path in named or default_paths:
        try:
            found = _files(path)
        except OSError as error:
            problems.append(Problem(str(path), 0, "", f"cannot be read: {error.strerror}"))
            continue
        if named and not found:
            what = "the folder holds no *.json file" if path.is_dir() else "there is no such file"
            problems.append(Problem(str(path), 0, "", what))
        for file in found:
            # A file may be named and lie in a folder that is named too: that is not "said twice".
            files.setdefault(file.absolute(), file)
    if not files and not problems:
        places = " nor ".join(str(path) for path in default_paths)
        message = f"neither {places} holds a configuration: name one with --config PATH"
        problems.append(Problem(str(default_paths[0]), 0, "", message))
    return list(files.values()), problems


def _files(path: Path) -> list[Path]:
    """Return a folder's files in name order, or the file itself; nothing if there is none.

    Hidden files are what editors leave behind. Raises OSError when the way there is barred.
    """
    if not path.is_dir():
        return [path] if path.exists() else []
    return sorted(
        file for file in path.iterdir() if file.suffix == ".json" and not file.name.startswith(".")
    )


def _read(files: Iterable[Path]) -> tuple[list[Document], list[Problem]]:
    documents: list[Document] = []
    problems: list[Problem] = []
    for file in files:
        try:
            documents.append(read(file))
        except ConfigError as error:
            problems += error.problems
    return documents, problems


def _check(
    documents: Sequence[Document], environ: Mapping[str, str], *, complete: bool
) -> tuple[Merged, list[Problem]]:
    """Merge what could be read and return it with its problems; `complete` if that is all."""
    duplicates = [problem for document in documents for problem in document.duplicates]
    faults = [problem for document in documents for problem in schema_problems(document)]
    merged = merge(documents, faults, complete=complete)
    logical = [*merged.problems, *logical_problems(merged, environ)]
    order = {document.file: position for position, document in enumerate(documents)}
    logical.sort(key=lambda problem: (order[problem.file], problem.line))
    return merged, [*duplicates, *faults, *logical]
