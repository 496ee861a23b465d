"""What may happen to a job on its way: decrypt, rewrite, data_callback, encrypt.

`build` makes a forward's Pipeline, or None for one that passes bytes through untouched;
`check_reader` what tells the age of its checks. Nothing in this package opens a connection, waits
or yields, or writes a log.
"""

from gevproxy.stages.callback import CallbackJob
from gevproxy.stages.late import CheckReader, check_reader
from gevproxy.stages.pipeline import Pipeline, build

__all__ = ["CallbackJob", "CheckReader", "Pipeline", "build", "check_reader"]
