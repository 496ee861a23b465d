"""From the name of a callback to its function, read anew each time.

A reload must bring new code into use and, if that is broken, leave the running code as it was.
So nothing is ever reloaded in place: modules are loaded beside the ones in use, which live on in
the functions that came from them. This file may change `sys.modules` and nothing else.
"""

import importlib
import inspect
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib.machinery import SourceFileLoader
from importlib.util import module_from_spec, spec_from_loader
from pathlib import Path
from traceback import walk_tb
from types import CodeType, ModuleType
from typing import Any, Final

from gevproxy.errors import ConfigError, Problem

Function = Callable[[bytes, Any], object]
"""A callback as it is written; what it takes and returns is told in callback.py."""

_NEVER_ANEW: Final = sys.stdlib_module_names | {"__main__", "gevproxy"}
"""Packages that this program runs on: a second copy of one would be a second truth."""

_OUR_FOLDER: Final = str(Path(__file__).parent)


def load(name: str) -> Function:
    """Return the function that `module:function` or `PATH.py:function` names.

    The file, or the module with all of its top-level package, is executed again at each call, and
    so each forward has a copy of its own. What the code imports from other packages stays as it is.
    Raises ConfigError, with one problem that says where the code failed, when it cannot be loaded
    or the function cannot be called with (data, job).
    """
    place, _, attribute = name.rpartition(":")
    try:
        module = _load_file(place) if place.endswith(".py") else _import(place)
        function = getattr(module, attribute, None)
    except (Exception, SystemExit) as error:  # a module may raise anything
        message = f"cannot be loaded: {type(error).__name__}: {error}{raised_at(error)}"
        raise _unusable(name, message) from error
    if function is None:
        raise _unusable(name, f'does not exist: there is no "{attribute}" in {place}')
    if not callable(function):
        raise _unusable(name, f"is no function but of type {type(function).__name__}")
    if inspect.iscoroutinefunction(function):
        raise _unusable(name, 'is an "async def": it must be a plain function')
    if not _takes_two(function):
        raise _unusable(name, "cannot be called with (data, job)")
    callback: Function = function
    return callback


def source_of(function: Function) -> bytes:
    """Return the content of the file that a callback is written in; b"" where that is unknown."""
    try:
        file = inspect.getsourcefile(inspect.unwrap(function))
        return Path(file).read_bytes() if file else b""
    except (OSError, TypeError, ValueError):  # TypeError: an object that is called, code in C
        return b""


def raised_at(error: BaseException) -> str:
    """Say where in a callback's file an error came up, as " at FILE:LINE"; "" if not in any."""
    frames = ((frame.f_code.co_filename, line) for frame, line in walk_tb(error.__traceback__))
    theirs = [(file, line) for file, line in frames if not _is_machinery(file)]
    # The innermost line of the callback's own file tells more than one deep in a library.
    lines = [line for file, line in theirs if file == theirs[0][0]]
    return f" at {theirs[0][0]}:{lines[-1]}" if theirs else ""


def _is_machinery(file: str) -> bool:
    return file.startswith((_OUR_FOLDER, "<frozen importlib")) or file == importlib.__file__


class _SourceLoader(SourceFileLoader):
    """Compiles the source each time and leaves no .pyc beside it.

    Python trusts a .pyc whose source had the same size and second, and so may miss an edit.
    """

    def get_code(self, fullname: str) -> CodeType:
        path = self.get_filename(fullname)
        return self.source_to_code(self.get_data(path), path)


def _load_file(path: str) -> ModuleType:
    """Execute a file as a module whose name nobody can import by accident."""
    name = f"<gevproxy callback {path}>"
    loader = _SourceLoader(name, path)
    spec = spec_from_loader(name, loader)
    if spec is None:
        raise AssertionError("a loader with a file name always gives a spec")
    with _set_aside(name):
        module = module_from_spec(spec)
        sys.modules[name] = module  # where dataclasses look their module up
        loader.exec_module(module)
    return module


def _import(name: str) -> ModuleType:
    """Import a module, anew with all of its package."""
    importlib.invalidate_caches()  # a file may be newer than what was seen of its folder
    package = name.partition(".")[0]
    if package in _NEVER_ANEW:
        return importlib.import_module(name)
    with _set_aside(package):
        return importlib.import_module(name)


@contextmanager
def _set_aside(package: str) -> Iterator[None]:
    """Hide a package's modules while others are loaded; if that fails, put them back."""
    before = _take(package)
    try:
        yield
    except BaseException:
        _take(package)
        sys.modules.update(before)
        raise


def _take(package: str) -> dict[str, ModuleType]:
    """Remove a package and all in it from `sys.modules` and return it."""
    inside = f"{package}."
    names = [name for name in sys.modules if name == package or name.startswith(inside)]
    return {name: sys.modules.pop(name) for name in names}


def _takes_two(function: Callable[..., object]) -> bool:
    try:
        signature = inspect.signature(function)
    except (TypeError, ValueError):  # code written in C need not have one
        return True
    try:
        signature.bind(b"", None)
    except TypeError:
        return False
    return True


def _unusable(name: str, message: str) -> ConfigError:
    """Return the error for a callback; the caller knows where in the configuration it is named."""
    return ConfigError((Problem("", 0, "", f"the callback {name} {message}"),))
