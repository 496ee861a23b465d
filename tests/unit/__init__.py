"""Floors 0 to 2: no gevent, no socket."""
