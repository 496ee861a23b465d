"""`gevproxy convert`: the Perl proxy's configuration in, ours out. Needs no gevent."""

from gevproxy.convert.command import add_arguments

__all__ = ["add_arguments"]
