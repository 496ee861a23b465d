"""gevproxy: a Gearman relay that loses nothing.

Takes jobs from queues of one gearmand (the source) and submits them to another (the target).
This file names the version and nothing else may live here: importing it has no effect.
"""

__version__ = "0.1.0"
