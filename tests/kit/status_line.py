"""The Perl proxy's status line: lines that it was seen to send, and how dashboards read them."""

import re
from typing import NamedTuple

LINE = re.compile(
    r"(?P<code>[0-3]):(?P<word>OK|WARNING|CRITICAL|UNKNOWN) - proxy version v(?P<version>\S+) "
    r"running\.(?P<text>[^|]*)\|(?P<perfdata>(?: '[^']+'=\d+(?:\.\d+)?c?;;;)*)"
)
METRIC = re.compile(r"'([^']+)'=(\d+(?:\.\d+)?)(c?);;;")
FAILED = re.compile(r" (\d+) servers? failed: (\S+(?:, \S+)*)\.(?= |$)")
BACKLOG = re.compile(r" backlog contains (\d+) jobs\.")

SAMPLES = """\
0:OK - proxy version v2.08 running.| 'backlog'=0;;; 'bytes_in'=522084c;;; 'bytes_out'=522084c;;;\
 'queues'=2;;; 'server'=2;;; 'total_errors'=0c;;; 'total_jobs'=1592c;;;\
 'check_results::bytes_out'=286664c;;; 'check_results::jobs'=796c;;;
1:WARNING - proxy version v2.08 running. 1 server failed: 127.0.0.1:27730.| 'backlog'=258;;;
1:WARNING - proxy version v2.08 running. 3 servers failed: a:1, b:2, c:3.|
1:WARNING - proxy version v2.08 running. backlog contains 80 jobs.| 'backlog'=80;;;
""".splitlines()


class Line(NamedTuple):
    """A line as a dashboard has read it; None where it says nothing of the kind."""

    code: int
    word: str
    text: str
    metrics: dict[str, str]
    failed: tuple[int, list[str]] | None
    backlog: int | None


def read(line: str) -> Line:
    """Read a line, all of it."""
    found = LINE.fullmatch(line)
    assert found, line
    failed, backlog = FAILED.search(found["text"]), BACKLOG.search(found["text"])
    return Line(
        int(found["code"]),
        found["word"],
        found["text"],
        {name: value + c for name, value, c in METRIC.findall(found["perfdata"])},
        (int(failed[1]), failed[2].split(", ")) if failed else None,
        int(backlog[1]) if backlog else None,
    )
