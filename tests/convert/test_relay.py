"""The Perl proxy's own example, converted, at work between two gearmands."""

import json
from collections.abc import Sequence

from gevproxy.cli import main
from tests.convert.kit import STYLES, Convert
from tests.kit.packets import Kind, Packet
from tests.kit.peers import Assigned, Consumer, Job, SyncClient, submit
from tests.kit.relay import Relay
from tests.kit.servers import Gearmand
from tests.mod_gearman.payloads import CHECK, RESULT, decrypt, encrypt

LOCAL, REMOTE = b"local password", b"remote password"
UNIQUE = b"0123456789ABCDEF0123456789ABCDEF"


def echo(job: Assigned) -> Sequence[Packet]:
    """Answer with what came."""
    return [Packet(Kind.WORK_COMPLETE, (job.handle, b"echo " + job.workload))]


def test_the_example_of_the_description_relays(
    convert: Convert, gearmand_a: Gearmand, gearmand_b: Gearmand
) -> None:
    """Simple, back, through both keys and the callback and back, synchronous, status queue."""
    text = (STYLES / "01-description" / "gearman_proxy.cfg").read_text()
    text = text.replace("127.0.0.1:4730", gearmand_a.address)
    file = convert.perl(text.replace("192.168.1.33:4730", gearmand_b.address))
    done = convert(file, "--output", "gevproxy.json", "--keys-dir", "keys")
    assert done.code == 0, done.err
    written = convert.folder / "gevproxy.json"
    assert main(["check", "--config", str(written)]) == 0

    checks = (b"hostgroup_network_b", b"servicegroup_special", b"servicegroup_variable")
    special = CHECK.replace(b"=check_results", b"=results_servicegroup_special")
    with (
        Relay(json.loads(written.read_text())) as relay,
        Consumer(gearmand_b.port, *checks, keep_workloads=True) as workers,
        Consumer(gearmand_b.port, b"rpc", answer=echo),
        Consumer(gearmand_a.port, b"check_results", keep_workloads=True) as naemon,
    ):
        payloads = (b"as it is", encrypt(LOCAL, CHECK), b"dHlwZT14CnJlc3VsdF9xdWV1ZT15Cg==")
        jobs = [Job(queue, UNIQUE, each) for queue, each in zip(checks, payloads, strict=True)]
        submit(gearmand_a.port, jobs)
        workers.wait_for(3)
        arrived = {job.function: job for job in workers.jobs}
        assert {job.unique for job in workers.jobs} == {UNIQUE}
        assert arrived[checks[0]].workload == b"as it is"
        assert decrypt(REMOTE, arrived[checks[1]].workload) == special
        assert arrived[checks[2]].workload == (
            b"dHlwZT14CnJlc3VsdF9xdWV1ZT1yZXN1bHRzX3NlcnZpY2Vncm91cF9zcGVjaWFsCg=="
        )
        results = [
            Job(b"check_results", b"1", b"plain result"),
            Job(b"results_servicegroup_special", b"2", encrypt(REMOTE, RESULT)),
        ]
        submit(gearmand_b.port, results)
        naemon.wait_for(2)
        by_unique = {job.unique: job.workload for job in naemon.jobs}
        assert by_unique[b"1"] == b"plain result"
        assert decrypt(LOCAL, by_unique[b"2"]) == RESULT
        with SyncClient(gearmand_a.port) as client:
            assert client.call(b"rpc", b"hello")[-1].args[1] == b"echo hello"
            assert client.call(b"proxy_status", b"check")[-1].args[1].startswith(b"0:OK - proxy")
        assert {status["unaccounted"] for status in relay.stats().values()} == {0}
