"""The README's steps lead to where they say: its commands and its stunnel.conf, as they stand."""

import json
import re
import subprocess
import sys
from pathlib import Path

from tests.kit.certificates import Pair, pin_of
from tests.kit.relay import ROOT
from tests.kit.servers import Gearmand, Stunnel

SECTION = (ROOT / "README.md").read_text().split("\n## TLS\n")[1].split("\n## ")[0]


def block(kind: str, words: str) -> str:
    """Return the code block of a kind that holds these words."""
    blocks: list[str] = re.findall(rf"^```{kind}\n(.*?)^```", SECTION, re.MULTILINE | re.DOTALL)
    (found,) = (each for each in blocks if words in each)
    return found


def test_step_by_step(gearmand_a: Gearmand, gearmand_b: Gearmand, tmp_path: Path) -> None:
    """From nothing to `ok`; the far end is 127.0.0.1 here, and the folders are others."""
    make = block("sh", "openssl req -x509").replace("192.168.1.33", "127.0.0.1")
    subprocess.run(["sh", "-ec", make], cwd=tmp_path, check=True, capture_output=True)
    options = block("ini", "[gearman]").split("[gearman]\n")[1].splitlines()
    far = [
        line.replace("/etc/stunnel", str(tmp_path))
        for line in options
        if not line.startswith(("accept", "connect", "cert", "key"))
    ]
    settings = json.loads(block("json", '"servers"'))
    (server,) = settings["servers"].values()
    entry = json.loads(json.dumps(server).replace("/etc/gevproxy/tls", str(tmp_path)))
    pair = Pair(tmp_path / "gearman-b.pem", tmp_path / "gearman-b.key")
    with Stunnel(gearmand_b.port, pair, None, *far) as end:
        pin = subprocess.check_output(["sh", "-c", block("sh", "pkey -pubin")], cwd=tmp_path)
        assert pin.decode().strip() == pin_of(pair.cert)
        entry["tls"]["pin_sha256"] = pin.decode().strip()
        file = tmp_path / "gevproxy.json"
        queues = {f"{gearmand_a.address}/q": f"{end.address}/q"}
        file.write_text(json.dumps({"queues": queues, "servers": {end.address: entry}}))
        check = [sys.executable, "-m", "gevproxy", "check", "--connect", "--config", str(file)]
        done = subprocess.run(check, capture_output=True, text=True, timeout=60, check=False)
        assert done.returncode == 0, done.stdout + done.stderr
        assert f"target ok      {end.address}: TLSv1.3, gearmand 1." in done.stdout
        del entry["tls"]["cert"], entry["tls"]["key"]
        file.write_text(json.dumps({"queues": queues, "servers": {end.address: entry}}))
        done = subprocess.run(check, capture_output=True, text=True, timeout=60, check=False)
        assert done.returncode == 1
        assert "the peer demands a client certificate" in done.stdout
