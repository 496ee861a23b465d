"""What a test needs of its machine, and what becomes of it where that is missing."""

import os
from typing import NoReturn

import pytest


def lack(reason: str) -> NoReturn:
    """Skip, or fail where tests may not be skipped."""
    if os.environ.get("CI"):
        pytest.fail(reason)
    pytest.skip(reason)
