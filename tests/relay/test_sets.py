"""Every job arrives, as it was, once: whatever its size, its bytes and its unique."""

from collections.abc import Iterator

from tests.kit.eventually import eventually
from tests.kit.packets import Kind
from tests.kit.peers import Consumer, Job, Producer, Seen, SyncClient, submit
from tests.kit.servers import Gearmand
from tests.relay.forwarding import HERE, THERE, CheckedRelay, relay, wait_queue
from tests.relay.ledger import Ledger

EVERY_BYTE = bytes(range(256))
KB = 1000
MIB = 1 << 20


def of_all_sizes(count: int) -> Iterator[Job]:
    """Yield distinct jobs: most up to 4 KB, one in 16 up to 200 KB, with every byte value."""
    longest = 200 * KB
    pattern = EVERY_BYTE * (longest // 256 + 2)
    for number in range(count):
        # 7919 and 104,729 are primes: the sizes are spread and none is left out.
        tail = number % 16 == 0
        size = number * 104_729 % (longest + 1) if tail else number * 7919 % (4 * KB)
        shift = number % 256
        label = b"%d" % number
        workload = label + pattern[shift : shift + size - len(label)] if size > 16 else label[:size]
        yield Job(HERE, b"unique-%d" % number, workload)


def relayed(source: Gearmand, target: Gearmand, consumer: Consumer, count: int) -> list[Seen]:
    """Wait until all is done everywhere and return what came."""
    consumer.wait_for(count, deadline=120)
    wait_queue(source, total=0)
    eventually(lambda: target.admin.queue(THERE.decode()).total == 0)
    return list(consumer.seen)


def test_100_000_jobs_of_every_size_arrive_as_exactly_that_set(
    gearmand_a: Gearmand, gearmand_b: Gearmand
) -> None:
    """Rows 6 and 8: 0 B to 200 KB, every byte value, uniques kept, nothing sent twice."""
    ledger = Ledger()
    with (
        relay(gearmand_a, gearmand_b) as proxy,
        Consumer(gearmand_b.port, THERE) as consumer,
        Producer(gearmand_a.port, ledger.book(of_all_sizes(100_000))) as producer,
    ):
        producer.join(120)
        ledger.assert_exact(relayed(gearmand_a, gearmand_b, consumer, 100_000))
        counters = proxy.only_stats()["counters"]
    assert len(ledger.submitted) == 100_000
    assert counters["received"] == counters["confirmed"] == 100_000
    assert counters["bytes_in"] == counters["bytes_out"]
    assert counters["retries"] == counters["given_back"] == 0


def test_sizes_around_64_kib_and_16_mib_arrive(gearmand_a: Gearmand, gearmand_b: Gearmand) -> None:
    """The sizes at which buffers and lengths are cut wrong, if anywhere."""
    sizes = [*range(65_400, 65_601), 16 * MIB]
    bytes_of = EVERY_BYTE * (16 * MIB // 256)
    ledger = Ledger()
    with (
        relay(gearmand_a, gearmand_b),
        Consumer(gearmand_b.port, THERE) as consumer,
    ):
        jobs = (Job(HERE, b"%d" % size, bytes_of[:size]) for size in sizes)
        submit(gearmand_a.port, ledger.book(jobs))
        ledger.assert_exact(relayed(gearmand_a, gearmand_b, consumer, len(sizes)))


def test_equal_jobs_without_a_unique_all_arrive(gearmand_a: Gearmand, gearmand_b: Gearmand) -> None:
    """100 are submitted, 100 arrive: the relay invents no unique that would join them."""
    ledger = Ledger()
    with relay(gearmand_a, gearmand_b) as proxy:
        submit(gearmand_a.port, ledger.book([Job(HERE, b"", b"the same")] * 100))
        proxy.wait_counter("confirmed", 100)
        assert gearmand_b.admin.queue(THERE.decode()).total == 100
        with Consumer(gearmand_b.port, THERE) as consumer:
            ledger.assert_exact(relayed(gearmand_a, gearmand_b, consumer, 100))


def test_a_unique_that_the_target_holds_is_counted_as_coalesced(
    gearmand_a: Gearmand, gearmand_b: Gearmand
) -> None:
    """Its JOB_CREATED is as good as any other: the job is done at the source."""
    with relay(gearmand_a, gearmand_b) as proxy:
        submit(gearmand_b.port, [Job(THERE, b"twin", b"first")])
        submit(gearmand_a.port, [Job(HERE, b"other", b""), Job(HERE, b"twin", b"second")])
        proxy.wait_counter("confirmed", 2)
        assert proxy.only_stats()["counters"]["coalesced"] == 1
        wait_queue(gearmand_a, total=0)
        assert gearmand_b.admin.queue(THERE.decode()).total == 2


def test_uniques_are_left_out_where_the_forward_says_so(
    gearmand_a: Gearmand, gearmand_b: Gearmand
) -> None:
    with (
        relay(gearmand_a, gearmand_b, unique="none"),
        Consumer(gearmand_b.port, THERE) as consumer,
    ):
        submit(gearmand_a.port, [Job(HERE, b"u%d" % number, b"") for number in range(10)])
        assert {each.unique for each in consumer.wait_for(10)} == {b""}


def test_a_foreground_job_gets_an_empty_result_when_the_target_has_it(
    gearmand_a: Gearmand, gearmand_b: Gearmand
) -> None:
    """On an async forward its client learns that the job was passed on, no more."""
    with (
        relay(gearmand_a, gearmand_b),
        SyncClient(gearmand_a.port) as client,
    ):
        (end,) = client.call(HERE, b"a question")
        assert (end.kind, end.args[1]) == (Kind.WORK_COMPLETE, b"")
        assert gearmand_b.admin.queue(THERE.decode()).total == 1


def test_priority_at_the_target_is_the_forwards(gearmand_a: Gearmand, gearmand_b: Gearmand) -> None:
    """Jobs of a forward with high priority are taken before those that came earlier."""
    with relay(gearmand_a, gearmand_b, priority="high") as proxy:
        submit(gearmand_b.port, [Job(THERE, b"early", b"")])
        submit(gearmand_a.port, [Job(HERE, b"urgent", b"")])
        proxy.wait_counter("confirmed", 1)
        with Consumer(gearmand_b.port, THERE, window=1) as consumer:
            consumer.wait_for(2)
    assert consumer.uniques == [b"urgent", b"early"]


def test_order_is_kept_as_long_as_nothing_fails(gearmand_a: Gearmand, gearmand_b: Gearmand) -> None:
    jobs = [Job(HERE, b"%d" % number, b"") for number in range(2000)]
    with (
        relay(gearmand_a, gearmand_b),
        Consumer(gearmand_b.port, THERE, window=1) as consumer,
    ):
        submit(gearmand_a.port, jobs)
        consumer.wait_for(2000)
    assert consumer.uniques == [job.unique for job in jobs]


def test_forwards_in_both_directions_share_the_servers(
    gearmand_a: Gearmand, gearmand_b: Gearmand
) -> None:
    """Checks go out and results come back through one relay; the uniques of both are kept."""
    a, b = gearmand_a.address, gearmand_b.address
    queues = {f"{a}/checks": f"{b}/checks", f"{b}/results": f"{a}/results"}
    out, back = Ledger(), Ledger()
    with (
        CheckedRelay({"queues": queues}) as proxy,
        Consumer(gearmand_b.port, b"checks") as checks,
        Consumer(gearmand_a.port, b"results") as results,
    ):
        names = [b"%d" % number for number in range(5000)]
        with (
            Producer(gearmand_a.port, out.book(Job(b"checks", n, b"c") for n in names)) as going,
            Producer(gearmand_b.port, back.book(Job(b"results", n, b"r") for n in names)) as coming,
        ):
            going.join()
            coming.join()
        out.assert_exact(checks.wait_for(5000))
        back.assert_exact(results.wait_for(5000))
        assert {s["counters"]["received"] for s in proxy.stats().values()} == {5000}
