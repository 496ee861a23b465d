"""The filter that a check may bring: "perfdatafilter=REGEX", searched in the name of each metric.

Pure but for the search, which its user may bound in time.
"""

import re
import warnings
from collections.abc import Callable, Iterable
from typing import Final

MAX_FILTER: Final = 256
"""Characters of a perfdatafilter: compiling takes a stack that grows with the nesting."""

_FILTER: Final = re.compile(r"perfdatafilter=([^\s\0]+)")

Search = Callable[[re.Pattern[str], Iterable[str]], list[str]]
"""Returns the texts in which a pattern is found; TimeoutError where that takes too long."""


class FilterError(ValueError):
    """A perfdatafilter cannot be used; the text says why."""


def search(pattern: re.Pattern[str], texts: Iterable[str]) -> list[str]:
    """Return the texts in which the pattern is found, however long that takes."""
    return [text for text in texts if pattern.search(text)]


def filtered(names: Iterable[str], request: bytes, search: Search) -> list[str]:
    """Return the names that a request asks for. FilterError where its filter cannot be used."""
    found = _FILTER.search(request.decode(errors="backslashreplace"))
    if not found:
        return list(names)
    try:
        return search(_compile(found[1]), names)
    except TimeoutError as error:
        raise FilterError("takes too long: write a simpler one") from error


def _compile(text: str) -> re.Pattern[str]:
    if len(text) > MAX_FILTER:
        raise FilterError(f"is longer than {MAX_FILTER} characters")
    try:
        with warnings.catch_warnings():
            # "Possible nested set" and the like would go to stderr, between the log's lines.
            warnings.simplefilter("ignore")
            return re.compile(text)
    except (ValueError, re.error, OverflowError, RecursionError) as error:
        # ValueError: flags that exclude each other, as in "(?u)(?a)x".
        raise FilterError(f"is no regular expression: {error}") from error
