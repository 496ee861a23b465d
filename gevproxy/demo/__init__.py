"""`gevproxy demo`: the main job, shown on this machine in a few seconds.

Two job servers on free loopback ports, the relay between them as a process of its own, checks
from A to B and their results back to A. Nothing is left behind: no file, no process.
"""

from gevproxy.demo.show import add_arguments, main

__all__ = ["add_arguments", "main"]
