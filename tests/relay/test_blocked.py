"""Jobs that cannot pass: row 13, and packets over max_packet.

Ten refusals in a row become dead letters; the eleventh blocks, its job stays at its source, and no
other comes to harm.
"""

from tests.kit.eventually import eventually
from tests.kit.packets import Kind
from tests.kit.peers import Job, Seen, drain, numbered, seen, submit
from tests.kit.scripted import Peer, Refuses, ScriptedServer
from tests.kit.servers import Gearmand
from tests.relay.doubles import Withholds
from tests.relay.forwarding import (
    HERE,
    THERE,
    CheckedRelay,
    arrived_at,
    left_at,
    relay,
    seconds_between,
    wait_queue,
    wait_submitted,
)
from tests.relay.ledger import Ledger

POISON = Job(HERE, b"poison", b"never to be read in a log")
LETTERS = [POISON._replace(unique=b"poison-%d" % number) for number in range(10)]
COMEBACK = 5.0  # seconds from a refusal to the next attempt


class RefusesPoison(Refuses):
    """A target that will not have some jobs, until it is cured."""

    def __init__(self) -> None:
        super().__init__(lambda job: job.unique.startswith(b"poison"), b"BAD_JOB", b"no such luck")

    def cure(self) -> None:
        """Take every job from now on."""
        self.refused = lambda _: False


class RefusesInTurn(Withholds):
    """Answers when it is told to, and refuses the poison when its turn has come."""

    def confirm(self, peer: Peer, job: Job) -> None:
        """Confirm or refuse."""
        if job.unique.startswith(b"poison"):
            self.reply(peer, Kind.ERROR, b"BAD_JOB", b"")
        else:
            super().confirm(peer, job)


class Remembers(ScriptedServer):
    """A source that knows all who ever connected."""

    def __init__(self) -> None:
        super().__init__()
        self.visitors: list[Peer] = []

    def on_connect(self, peer: Peer) -> None:
        """Remember who came."""
        self.visitors.append(peer)


def left_of_the_poison(proxy: CheckedRelay, source: Gearmand) -> list[Seen]:
    """Return what is left of the poison: at the source, or as one more dead letter.

    Met again after a job that passed, it is the first refusal in a row and no longer blocks.
    """
    wait_queue(source, running=0)
    buried = proxy.only_stats()["counters"]["dead_lettered"] > len(LETTERS)
    return [seen(POISON)] if buried else left_at(source)


def test_row_13_the_eleventh_refusal_blocks_with_its_reason_and_harms_no_other_job(
    gearmand_a: Gearmand,
) -> None:
    """All others arrive once, those behind it too."""
    ledger = Ledger()
    jobs = list(numbered(HERE, 30))
    with RefusesPoison() as target, relay(gearmand_a, target) as proxy:
        submit(gearmand_a.port, [*ledger.book(jobs[:10]), *LETTERS])
        submit(gearmand_a.port, ledger.book([POISON, *jobs[10:]]))
        record = proxy.wait_event("forward_blocked")
        assert "BAD_JOB" in record["message"]
        assert "no such luck" in record["message"]
        assert record["unique"] == "poison"
        assert record["handle"].startswith("H:")
        proxy.wait_event("source_left", since=proxy.records.index(record))
        # Others pass when it comes back, and that ends the block until it meets the poison again.
        wait_submitted(target, 30, deadline=60)
        ledger.assert_exact(arrived_at(target), left_of_the_poison(proxy, gearmand_a))
    assert "never to be read" not in str(proxy.records)


def test_row_13_what_is_refused_behind_the_eleventh_is_the_same_block(
    gearmand_a: Gearmand,
) -> None:
    """It was under way already. Who counts blocks counts one, and hears of the first reason."""
    poison = [POISON._replace(unique=b"poison-%d" % number) for number in range(40)]
    with RefusesInTurn() as target, relay(gearmand_a, target) as proxy:
        submit(gearmand_a.port, poison)
        target.wait_pending(40)
        target.release(40)
        proxy.wait_event("source_left")
        counters = proxy.only_stats()["counters"]
        assert (counters["refused"], counters["dead_lettered"]) == (40, 10)
        assert (counters["blocks"], counters["given_back"]) == (1, 30)


def test_row_13_a_job_that_blocks_is_tried_again_until_it_passes(gearmand_a: Gearmand) -> None:
    """Alone at its source, it waits there between the attempts."""
    ledger = Ledger()
    with RefusesPoison() as target, relay(gearmand_a, target) as proxy:
        submit(gearmand_a.port, [*LETTERS, *ledger.book([POISON])])
        record = proxy.wait_event("forward_blocked")
        proxy.wait_event("source_left", since=proxy.records.index(record))
        wait_queue(gearmand_a, total=1, running=0, workers=0)
        proxy.wait_reason("blocked: target refused: BAD_JOB")
        eventually(lambda: len(target.refusals) >= len(LETTERS) + 3, deadline=30)
        wait_queue(gearmand_a, total=1, running=0, workers=0)
        target.cure()
        wait_submitted(target, 1)
        proxy.wait_event("forward_unblocked")
        submit(gearmand_a.port, ledger.book(numbered(HERE, 20)))
        wait_submitted(target, 21)
        wait_queue(gearmand_a, total=0, workers=1)
        ledger.assert_exact(arrived_at(target))
        status = proxy.only_stats()
        assert status["reasons"] == []
        counters = status["counters"]
        assert counters["dead_lettered"] == len(LETTERS)
        assert counters["refused"] - len(LETTERS) == counters["blocks"] >= 3


def test_row_13_a_blocked_forward_comes_back_every_5_seconds_for_twice_as_many() -> None:
    """Other jobs each time: those that were refused are at their queue's tail."""
    with (
        Remembers() as source,
        Refuses(lambda _: True, b"BAD_JOB") as target,
        relay(source, target) as proxy,
    ):
        source.offer(*numbered(HERE, 50))
        eventually(lambda: len(source.visitors) == 4 and source.visitors[3].grabs, deadline=30)
        eventually(lambda: len(proxy.events("source_left")) == 4)
        assert [peer.grabs for peer in source.visitors[1:4]] == [2, 4, 8]
        refused = [job.unique for job in target.refusals[-14:]]
        assert len(set(refused)) == 14
        left, back = proxy.events("source_left"), proxy.events("source_up")
        for earlier, later in zip(left, back[1:], strict=False):
            assert COMEBACK - 0.2 <= seconds_between(earlier, later) < COMEBACK + 3
        status = proxy.only_stats()
        assert (status["held"], status["counters"]["confirmed"]) == (0, 0)
        # The same reason is written once and summed up later.
        assert len(proxy.events("forward_blocked")) == 1


def test_row_13_what_is_under_way_beside_the_poison_is_confirmed_first(
    gearmand_a: Gearmand,
) -> None:
    """The forward leaves when nothing is under way any more: nothing is sent twice."""
    ledger = Ledger()
    jobs = list(numbered(HERE, 40))
    with RefusesInTurn() as target, relay(gearmand_a, target) as proxy:
        submit(gearmand_a.port, [*ledger.book(jobs[:10]), *LETTERS])
        submit(gearmand_a.port, ledger.book([POISON, *jobs[10:]]))
        target.wait_pending(51)
        target.release(21)
        proxy.wait_event("forward_blocked", unique="poison")
        wait_queue(gearmand_a, total=31, running=31, workers=1)
        assert not proxy.events("source_left")
        target.release()
        proxy.wait_event("source_left", given_back=1)
        wait_submitted(target, 40)
        wait_queue(gearmand_a, total=1)
        ledger.assert_exact(arrived_at(target), left_at(gearmand_a))


def test_row_13_a_queue_that_was_emptied_by_hand_goes_on(gearmand_a: Gearmand) -> None:
    """The operator takes the poison away; the next good job passes and ends the block."""
    with RefusesPoison() as target, relay(gearmand_a, target) as proxy:
        submit(gearmand_a.port, [*LETTERS, POISON])
        proxy.wait_event("forward_blocked")
        wait_queue(gearmand_a, running=0, workers=0)
        drain(gearmand_a.port, HERE, 1)
        wait_queue(gearmand_a, total=0, workers=1)
        proxy.wait_reason("blocked")
        submit(gearmand_a.port, numbered(HERE, 10))
        wait_submitted(target, 10)
        proxy.wait_event("forward_unblocked")
        assert proxy.only_stats()["reasons"] == []


def test_row_13_a_unique_that_gearmand_refuses_blocks_in_gearmands_words(
    gearmand_b: Gearmand,
) -> None:
    """65 bytes are too many for it; its source, not a gearmand, took them."""
    with ScriptedServer() as source, relay(source, gearmand_b) as proxy:
        source.offer(*[Job(HERE, b"u" * 65, b"%d" % n) for n in range(11)], *numbered(HERE, 20))
        record = proxy.wait_event("forward_blocked")
        assert record["message"].startswith("target refused: ")
        assert record["unique"] == "u" * 65
        eventually(lambda: len(source.completed) >= 30, deadline=30)
        assert gearmand_b.admin.queue("there").total == 20


def test_a_job_over_max_packet_blocks_and_is_named_with_size_and_setting(
    gearmand_a: Gearmand, gearmand_b: Gearmand
) -> None:
    """The others arrive, and the large one stays at its source."""
    ledger = Ledger()
    large = Job(HERE, b"large", bytes(200_000))
    with relay(gearmand_a, gearmand_b, max_packet=100_000) as proxy:
        submit(gearmand_a.port, ledger.book(numbered(HERE, 10)))
        (handle,) = submit(gearmand_a.port, ledger.book([large]))
        submit(gearmand_a.port, ledger.book(Job(HERE, b"b%d" % n, b"") for n in range(8)))
        record = proxy.wait_event("forward_blocked")
        for word in (handle.decode(), "2000", "max_packet", "100000"):
            assert word in record["message"]
        wait_queue(gearmand_a, running=0, workers=0)
        wait_queue(gearmand_a, total=1, deadline=80)
        wait_queue(gearmand_a, running=0, workers=0)
        eventually(lambda: proxy.only_stats()["counters"]["blocks"] >= 2, deadline=20)
        assert gearmand_a.admin.queue("here").total == 1
    ledger.assert_exact(left_at(gearmand_a), left_at(gearmand_b, THERE))


def test_row_13_and_s8_a_blocked_forward_leaves_with_its_held_bytes_at_their_cap(
    gearmand_a: Gearmand,
) -> None:
    """It need not submit what it holds to read on and get its grabs answered."""
    ledger = Ledger()
    with RefusesPoison() as target, relay(gearmand_a, target, window_bytes=100_000) as proxy:
        # The small ones make it ask for many at once, of which the large ones fill its hands.
        submit(gearmand_a.port, ledger.book(numbered(HERE, 300)))
        large = (Job(HERE, b"large-%d" % number, bytes(50_000)) for number in range(300))
        submit(gearmand_a.port, [*LETTERS, *ledger.book([POISON, *large])])
        proxy.wait_event("forward_blocked")
        proxy.wait_event("source_left")
        wait_submitted(target, 600, deadline=60)
        ledger.assert_exact(arrived_at(target), left_of_the_poison(proxy, gearmand_a))
