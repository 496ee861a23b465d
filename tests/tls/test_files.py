"""What is wrong with a file is a problem of the configuration, with its place and a remedy."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.kit.certificates import Authority, openssl
from tests.tls.ends import Papers, copy_of

FIRST = 4731  # the port of the first server


def check(folder: Path, *many: dict[str, object]) -> list[str]:
    """Return what `gevproxy check` says of servers with these settings, one line each."""
    servers = {f"127.0.0.1:{FIRST + n}": {"tls": tls} for n, tls in enumerate(many)}
    queues = {f"127.0.0.1:4730/{n}": f"{server}/q" for n, server in enumerate(servers)}
    file = folder / "gevproxy.json"
    file.write_text(json.dumps({"queues": queues, "servers": servers}, indent=1))
    done = subprocess.run(
        [sys.executable, "-m", "gevproxy", "check", "--config", str(file)],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        stdin=subprocess.DEVNULL,
    )
    assert done.returncode == (78 if done.stderr else 0)
    assert "Traceback" not in done.stderr
    return done.stderr.splitlines()


@pytest.fixture
def files(papers: Papers, tmp_path: Path) -> dict[str, object]:
    """Give a good set of files, by relative paths."""
    copy_of(papers.client, tmp_path)
    shutil.copy(papers.ours.cert, tmp_path / "ca.pem")
    return {"ca": "ca.pem", "cert": "own.pem", "key": "own.key"}


def test_a_good_set(files: dict[str, object], tmp_path: Path) -> None:
    assert check(tmp_path, files) == []


def test_every_bad_file_is_named_with_its_place(
    files: dict[str, object], papers: Papers, tmp_path: Path
) -> None:
    """All problems of all servers at once, and no passphrase is asked for."""
    begin, end = "-----BEGIN CERTIFICATE-----", "-----END CERTIFICATE-----"
    made = {
        "empty.pem": b"",
        "text.pem": f"{begin}\nbm8gY2VydGlmaWNhdGU=\n{end}\n".encode(),
        "expired.pem": papers.expired.cert.read_bytes(),
        "expired.key": papers.expired.key.read_bytes(),
        "open.key": papers.client.key.read_bytes(),
        "other.key": papers.server.key.read_bytes(),
        "no.key": b"no key",
    }
    for name, data in made.items():
        (tmp_path / name).write_bytes(data)
        (tmp_path / name).chmod(0o640 if name == "open.key" else 0o600)
    locked = ["-aes256", "-passout", "pass:s3cret"]
    openssl("pkey", "-in", str(papers.client.key), *locked, out=tmp_path / "locked.key")
    (tmp_path / "locked.key").chmod(0o600)
    cases = [
        ({"ca": "missing.pem"}, "/ca: {0}/missing.pem cannot be read: No such file or directory"),
        ({"ca": "."}, "/ca: {0} is not a regular file"),
        ({"ca": "empty.pem"}, '/ca: {0}/empty.pem holds no certificate in PEM ("-----BEGIN'),
        ({"ca": "text.pem"}, "/ca: {0}/text.pem holds a certificate that is damaged"),
        ({"ca": "expired.pem"}, "/ca: {0}/expired.pem has expired on 2020-02-01: renew it"),
        ({"cert": "own.key"}, '/cert: {0}/own.key holds no certificate in PEM ("-----BEGIN'),
        ({"cert": "expired.pem", "key": "expired.key"}, "/cert: {0}/expired.pem has expired on"),
        ({"key": "missing.key"}, "/key: {0}/missing.key cannot be read: No such file"),
        ({"key": "open.key"}, "/key: {0}/open.key can be read by others: chmod 600 {0}/open.key"),
        ({"key": "other.key"}, "/key: {0}/other.key is not the key of {0}/own.pem"),
        ({"key": "no.key"}, "/key: {0}/no.key and {0}/own.pem cannot be used: "),
        ({"key": "locked.key"}, "/key: {0}/locked.key has a passphrase, which nobody could give"),
    ]
    lines = check(tmp_path, *({**files, **change} for change, _ in cases))
    for n, (line, (_, words)) in enumerate(zip(lines, cases, strict=True)):
        assert f": /servers/127.0.0.1:{FIRST + n}/tls{words.format(tmp_path)}" in line
        assert line.startswith(f"{tmp_path}/gevproxy.json:")
        assert "s3cret" not in line


def test_ca_and_certificate_may_both_be_wrong(tmp_path: Path) -> None:
    first, second = check(tmp_path, {"ca": "a.pem", "cert": "b.pem", "key": "c.key"})
    assert "/tls/ca: " in first
    assert "/tls/cert: " in second


def test_a_bundle_may_hold_an_expired_authority(
    files: dict[str, object], papers: Papers, tmp_path: Path
) -> None:
    """As it does while one is replaced, with remarks between the certificates."""
    bundle = [papers.expired.cert.read_bytes(), "Größe: zwei\n".encode()]
    bundle += [papers.ours.cert.read_bytes(), papers.foreign.cert.read_bytes()]
    (tmp_path / "ca.pem").write_bytes(b"".join(bundle))
    assert check(tmp_path, files) == []


def test_a_far_time(files: dict[str, object], tmp_path: Path) -> None:
    """A certificate beyond 2050 tells its time in another form (RFC 5280, 4.1.2.5)."""
    authority = Authority(tmp_path, "long")
    pair = authority.issue("far", days=20_000)
    assert check(tmp_path, {**files, "cert": str(pair.cert), "key": str(pair.key)}) == []
