"""gevproxy: a Gearman relay that loses nothing.

Takes jobs from queues of one gearmand (the source) and submits them to another (the target).
This file holds the version and the one word that a callback needs, and nothing else may live here:
importing it has no effect.
"""

from enum import Enum
from typing import Final

__all__ = ["DROP", "Drop", "__version__"]

__version__ = "0.1.0"


class Drop(Enum):
    """The type of DROP, for annotations: `-> bytes | tuple[bytes, bytes] | gevproxy.Drop`."""

    DROP = "drop"


DROP: Final = Drop.DROP
"""What a `data_callback` returns for a job that must not reach the target.

The job is completed at the source and counted as dropped.
"""
