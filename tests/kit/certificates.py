"""Certificates as an operator makes them: with the openssl command, good and bad ones."""

import subprocess
from pathlib import Path
from typing import NamedTuple

DAY = 86400
EXPIRED = ("20200101000000Z", "20200201000000Z")


class Pair(NamedTuple):
    """A certificate with its key, both in PEM."""

    cert: Path
    key: Path


class Authority:
    """A certificate authority in a folder of its own."""

    def __init__(self, folder: Path, name: str = "ca", days: int = 30) -> None:
        self.folder = folder / name
        self.folder.mkdir()
        self.name = name
        self.cert, self.key = self.folder / "ca.pem", self.folder / "ca.key"
        (self.folder / "index").touch()
        options = ["-x509", "-days", str(days), *_new_key(self.key), *_subject(name)]
        openssl("req", *options, out=self.cert)

    def issue(
        self, name: str, *alternatives: str, days: int = 9, between: tuple[str, str] | None = None
    ) -> Pair:
        """Sign a new key; `alternatives` are names as in IP:127.0.0.1, by default that one.

        `between` are its first and last moment, in place of `days` from now.
        """
        pair = Pair(self.folder / f"{name}.pem", self.folder / f"{name}.key")
        request = self.folder / f"{name}.csr"
        openssl("req", "-new", *_new_key(pair.key), *_subject(name), out=request)
        self.sign(request, pair.cert, *alternatives, days=days, between=between)
        return pair

    def renew(self, pair: Pair, *alternatives: str) -> None:
        """Sign the same key anew."""
        self.sign(pair.cert.with_suffix(".csr"), pair.cert, *alternatives, days=8)

    def sign(
        self,
        request: Path,
        cert: Path,
        *alternatives: str,
        days: int,
        between: tuple[str, str] | None = None,
    ) -> None:
        """Sign a request."""
        names = ",".join(alternatives or ("IP:127.0.0.1",))
        extensions = self.folder / "extensions"
        extensions.write_text(f"subjectAltName={names}\n")
        settings = self.folder / "settings"
        settings.write_text(
            f"[ca]\ndefault_ca=own\n[own]\ndatabase={self.folder}/index\npolicy=any\n"
            f"rand_serial=yes\nunique_subject=no\nnew_certs_dir={self.folder}\n"
            "default_md=sha256\n[any]\ncommonName=supplied\n"
        )
        period = ["-startdate", between[0], "-enddate", between[1]] if between else []
        options = ["-days", str(days), *period, "-extfile", str(extensions), "-notext", "-batch"]
        authority = ["-cert", str(self.cert), "-keyfile", str(self.key)]
        config = ["-config", str(settings), "-in", str(request)]
        openssl("ca", *config, *authority, *options, out=cert)


def pin_of(cert: Path) -> str:
    """Return the SHA-256 sum of the public key as the README says how to compute it."""
    command = (
        'openssl x509 -in "$1" -noout -pubkey | openssl pkey -pubin -outform DER'
        " | openssl dgst -sha256 -binary | openssl base64"
    )
    return subprocess.run(
        ["sh", "-c", command, "-", str(cert)], check=True, capture_output=True, text=True
    ).stdout.strip()


def openssl(*arguments: str, out: Path) -> None:
    """Run the openssl command; fail with what it says."""
    done = subprocess.run(
        ["openssl", *arguments, "-out", str(out)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr


def _new_key(path: Path) -> list[str]:
    """Return the options that make a new key; its file has mode 0600."""
    return ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-keyout", str(path)]


def _subject(name: str) -> list[str]:
    return ["-subj", f"/CN={name}"]
