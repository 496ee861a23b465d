"""Two relay hosts with the same configuration: when one dies, the other takes its jobs over."""

from tests.chaos.site import Plan, Site
from tests.chaos.test_processes import LATE
from tests.kit.eventually import eventually
from tests.kit.pipe import Pipe
from tests.kit.servers import PersistentGearmand
from tests.relay.forwarding import CheckedRelay


def test_one_of_two_relays_is_killed_and_the_other_takes_its_jobs_over(
    near: PersistentGearmand, far: PersistentGearmand
) -> None:
    """Both take jobs until then; nothing is lost, and what was under way comes twice at most."""
    plans = [Plan("out", 8000, window=100), Plan("back", 8000, window=100, outward=False)]
    with (
        Pipe(far.port, delay=LATE) as path,
        Site((near, far), (near, path), plans) as site,
        CheckedRelay(site.configuration()) as second,
    ):

        def working() -> bool:
            counters = [status["counters"] for status in second.stats().values()]
            return all(each["confirmed"] > 100 for each in counters)

        eventually(working, 30, 0.2)
        for lane in site.lanes:
            eventually(lambda at=lane: at.source.admin.queue(at.plan.name).workers == 2, 30)  # type: ignore[misc]
        eventually(lambda: any(each["held"] for each in second.stats().values()), 30, 0.001)
        assert not all(lane.tally.complete for lane in site.lanes), "too late to show anything"
        site.strike()
        site.kills += 1  # what the second has counted is gone with it
        second.kill()
        site.finish()
