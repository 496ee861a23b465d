"""The one way in which a test waits: for a condition, with a deadline."""

import time
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")


def eventually(
    condition: Callable[[], T], deadline: float = 10.0, interval: float = 0.02, what: str = ""
) -> T:
    """Return the condition's first truthy value, or fail and say what was seen last."""
    end = time.monotonic() + deadline
    while not (value := condition()):
        if time.monotonic() > end:
            raise AssertionError(
                f"not within {deadline} s: {what or condition!r}; last seen: {value!r}"
            )
        time.sleep(interval)
    return value
