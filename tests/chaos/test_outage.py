"""An outage of the target with a stop and a start of the relay in it, jobs arriving all the while.

Seconds here; `OUTAGE=600 make test ARGS="tests/chaos/test_outage.py -s"` takes ten minutes over it
and shows the source's queue on its way.
"""

import os
import time

import pytest

from tests.chaos.site import Plan, Site
from tests.chaos.test_processes import pause
from tests.kit.admin import gearadmin_status
from tests.kit.eventually import eventually
from tests.kit.servers import PersistentGearmand

OUTAGE = float(os.environ.get("OUTAGE", "8"))  # seconds
LOOKS = 8  # at the source's queue meanwhile
RATE = 200  # jobs a second, before the outage, in it and behind it
MARGIN = 3.0  # seconds of work before and behind it
BACK = 30.0  # seconds from the target's return until all is there


def look(site: Site, began: float) -> int:
    """Return the jobs that wait at the source as gearadmin shows them, and show its line."""
    (line,) = (
        line
        for line in gearadmin_status(site.servers[0].address).splitlines()
        if line.startswith("out\t")
    )
    print(f"{time.monotonic() - began:6.0f} s  {line.expandtabs()}")  # noqa: T201
    return int(line.split("\t")[1])


@pytest.mark.timeout(OUTAGE + 170)
def test_an_outage_of_the_target_with_a_restart_of_the_relay_in_it(
    near: PersistentGearmand, far: PersistentGearmand
) -> None:
    """The queue grows where everybody can see it, and all of it is there soon after the return."""
    jobs = int(RATE * (OUTAGE + 2 * MARGIN))
    with Site((near, far), (near, far), [Plan("out", jobs, rate=RATE)]) as site:
        (lane,) = site.lanes
        site.wait_progress(RATE)
        far.stop()
        site.strike(far)
        began = time.monotonic()
        shown = [look(site, began)]
        for number in range(LOOKS):
            pause(OUTAGE / LOOKS)
            if number == LOOKS // 2:
                site.term_relay()
            shown.append(look(site, began))
        assert shown == sorted(shown)
        assert shown[-1] > RATE * OUTAGE * 0.7
        arrived = lane.tally.distinct
        far.start()
        back = time.monotonic()
        waiting = shown[-1]
        eventually(lambda: lane.tally.distinct >= arrived + waiting, BACK)
        seconds = time.monotonic() - back
        print(f"{waiting} jobs were at the target {seconds:.1f} s after its return")  # noqa: T201
        site.finish()
        print(site.table())  # noqa: T201
