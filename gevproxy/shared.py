"""What the parts of one forward have in common."""

from collections.abc import Callable
from typing import NamedTuple

from gevproxy.config.model import ForwardConfig
from gevproxy.log import EventLog
from gevproxy.status import Counters
from gevproxy.window import Window


class Shared(NamedTuple):
    """Given to every part of a forward; the window and the counters are changed by all of them."""

    config: ForwardConfig
    window: Window
    counters: Counters
    log: EventLog
    clock: Callable[[], float]
