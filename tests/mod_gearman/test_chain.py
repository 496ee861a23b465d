"""A check goes there and its result comes back, between programs that are linked with libgearman.

Mod-Gearman's own are in no package of Debian's. With the command `gearman` their library submits
and works here, and openssl encrypts; the worker below does with a check what Mod-Gearman's does.
"""

import shutil
import subprocess
import sys
from hashlib import md5

from tests.kit.means import lack
from tests.kit.peers import Consumer
from tests.kit.relay import ROOT, Relay, config
from tests.kit.servers import Gearmand
from tests.mod_gearman.payloads import CHECK, UNIQUE, decrypt, encrypt

NEAR, FAR = b"near s3cret", b"far s3cret of more than the 32 bytes that count"
QUEUE = "hostgroup_network_b"

RESULT = (
    b"host_name=%s\ncore_start_time=%s\nstart_time=1.0\nfinish_time=2.0\nreturn_code=0\n"
    b"exited_ok=1\nsource=Mod-Gearman Worker @\302\240rig\nservice_description=%s\n"
    b"output=OK - ran %s|v=1\\n\n\n\n\n"
)

WORKER = """
import subprocess, sys
from tests.mod_gearman.payloads import decrypt, encrypt
from tests.mod_gearman.test_chain import FAR, RESULT, UNIQUE
port, = sys.argv[1:]
text = decrypt(FAR, sys.stdin.buffer.read())
check = dict(line.split(b"=", 1) for line in text.splitlines() if line)
names = (b"host_name", b"core_time", b"service_description", b"command_line")
result = RESULT % tuple(check[name] for name in names)
subprocess.run(
    ["gearman", "-h", "127.0.0.1", "-p", port, "-b", "-u", UNIQUE, "-f", check[b"result_queue"]],
    input=encrypt(FAR, result), check=True,
)
"""


def test_a_check_goes_there_and_its_result_comes_back(
    gearmand_a: Gearmand, gearmand_b: Gearmand
) -> None:
    """With another key on either side, and a result queue of its own on the far one."""
    if shutil.which("gearman") is None:
        lack("the command gearman is not installed (Debian: gearman-tools)")
    a, b = gearmand_a, gearmand_b
    near, far = NEAR.decode(), FAR.decode()
    queues = {
        f"{a.address}/{QUEUE}": {
            "remote_queue": f"{b.address}/{QUEUE}",
            "decrypt": near,
            "rewrite": [{"set": {"result_queue": "results_b"}}],
            "encrypt": far,
        },
        f"{b.address}/results_b": {
            "remote_queue": f"{a.address}/check_results",
            "decrypt": far,
            "encrypt": near,
        },
    }
    command = [sys.executable, "-c", WORKER, str(b.port)]
    unique = md5(b"host012-svc00152", usedforsecurity=False).hexdigest().upper()
    with (
        Relay(config(queues)),
        Consumer(a.port, b"check_results", keep_workloads=True) as naemon,
        subprocess.Popen(
            [
                "gearman",
                "-h",
                b.host,
                "-p",
                str(b.port),
                "-w",
                "-c",
                "1",
                "-f",
                QUEUE,
                "--",
                *command,
            ],
            cwd=ROOT,
        ) as worker,
    ):
        try:
            subprocess.run(
                ["gearman", "-h", a.host, "-p", str(a.port), "-b", "-L", "-u", unique, "-f", QUEUE],
                input=encrypt(NEAR, CHECK),
                timeout=30,
                check=True,
            )
            (result,) = naemon.wait_for(1)
            assert result.unique == UNIQUE
            assert worker.wait(30) == 0
        finally:
            worker.kill()
    command_line = b"/usr/lib/nagios/plugins/check_x -w 1 -c 2"
    expected = RESULT % (b"host012", b"1795484776.726245", b"svc00152", command_line)
    assert decrypt(NEAR, naemon.jobs[0].workload) == expected
    assert naemon.jobs[0].workload == encrypt(NEAR, expected)
