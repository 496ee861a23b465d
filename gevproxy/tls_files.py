"""The files of TLS: certificates and keys of every server, read into what a connection needs.

Read at start and at each reload, so that what is wrong with a file is a problem of the
configuration, with its place, and not one of the night in which a forward connects anew.
"""

import hashlib
import ssl
import stat
import time
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Final, NoReturn

from gevproxy.config import TlsConfig
from gevproxy.errors import ConfigError, Problem
from gevproxy.gearman.certificate import Certificate, read_der, read_pem
from gevproxy.gearman.job import Server
from gevproxy.gearman.tls import Tls, client_context

MAX_FILE: Final = 4 * 1024 * 1024
"""Bytes; the certificate authorities of a whole system are 220 KB."""


class _UnusableError(Exception):
    """What is wrong with the file of an option; it never leaves this module."""

    def __init__(self, option: str, message: str) -> None:
        super().__init__(message)
        self.option = option


def read_tls(
    servers: Mapping[Server, TlsConfig], before: Mapping[Server, Tls] | None = None
) -> dict[Server, Tls]:
    """Read what the configuration names. ConfigError with the problems of all servers.

    A server for which nothing has changed, neither the configuration nor what is in a file, keeps
    its object from `before`, so that whoever uses it can tell.
    """
    found: dict[Server, Tls] = {}
    problems: list[Problem] = []
    for server, config in servers.items():
        reader = _Reader(config)
        tls = reader.tls()
        problems += reader.problems
        old = before.get(server) if before else None
        found[server] = old if old is not None and old.fingerprint == tls.fingerprint else tls
    if problems:
        raise ConfigError(tuple(problems))
    return found


class _Reader:
    """Reads the files of one server and collects what is wrong with them."""

    def __init__(self, config: TlsConfig) -> None:
        self.problems: list[Problem] = []
        self._config = config
        self._context = client_context()
        self._contents: list[bytes] = [repr(config).encode()]
        self._ca_lasts: float | None = None  # until when the last of several authorities holds

    def tls(self) -> Tls:
        """Return what could be read; look at `problems` afterwards."""
        config = self._config
        ca_expires, expires = self._try(self._authorities), self._try(self._own)
        digest = hashlib.sha256()
        for content in self._contents:
            digest.update(len(content).to_bytes(8) + content)
        return Tls(
            self._context,
            server_name=config.server_name,
            pins=config.pins,
            fingerprint=digest.digest(),
            expires=expires,
            ca_expires=ca_expires,
            ca_lasts=self._ca_lasts,
        )

    def _try(self, step: Callable[[], float | None]) -> float | None:
        try:
            return step()
        except _UnusableError as error:
            config, option = self._config, error.option
            line = config.lines.get(option, 0)
            place = f"{config.pointer}/{option}"
            self.problems.append(Problem(config.file, line, place, str(error)))
            return None

    def _authorities(self) -> float | None:
        """Trust the authorities; return when the first of those that still hold expires."""
        path = self._config.ca
        if path is None:
            self._context.load_default_certs(ssl.Purpose.SERVER_AUTH)
            # A folder of them is looked into at each handshake; a file has been read just now.
            bundle = ssl.get_default_verify_paths().cafile
            if bundle is not None:
                self._read("ca", Path(bundle))
            return None
        certificates = self._certificates("ca", path)
        try:
            self._context.load_verify_locations(cadata=b"".join(der for der, _ in certificates))
        except ssl.SSLError as error:
            _unusable("ca", f"{path} cannot be used: {_in_words(error)}")
        times = [certificate.not_after for _, certificate in certificates]
        valid = [when for when in times if when > time.time()]
        if not valid:
            _unusable("ca", f"{path} {_expired(max(times))}")
        self._ca_lasts = max(valid)
        return min(valid)

    def _own(self) -> float | None:
        """Load our certificate with its key; return when it expires."""
        cert, key = self._config.cert, self._config.key
        if cert is None or key is None:
            return None
        expires = self._certificates("cert", cert)[0][1].not_after
        if expires <= time.time():
            _unusable("cert", f"{cert} {_expired(expires)}")
        self._read("key", key, private=True)
        try:
            self._context.load_cert_chain(cert, key, password=_no_passphrase)
        except _PassphraseError:
            _unusable("key", f"{key} has a passphrase, which nobody could give: take it off")
        except ssl.SSLError as error:
            if error.reason == "KEY_VALUES_MISMATCH":
                _unusable("key", f"{key} is not the key of {cert}")
            _unusable("key", f"{key} and {cert} cannot be used: {_in_words(error)}")
        except OSError as error:  # gone since
            _unusable("key", f"{key} and {cert} cannot be read: {error.strerror}")
        return expires

    def _certificates(self, option: str, path: Path) -> list[tuple[bytes, Certificate]]:
        """Return the certificates of a file, at least one, each with its DER."""
        try:
            found = [(der, read_der(der)) for der in read_pem(self._read(option, path))]
        except ValueError:
            _unusable(option, f"{path} holds a certificate that is damaged")
        if not found:
            _unusable(option, f'{path} holds no certificate in PEM ("-----BEGIN CERTIFICATE-----")')
        return found

    def _read(self, option: str, path: Path, *, private: bool = False) -> bytes:
        """Read a regular file; `private` refuses one that others may read."""
        try:
            status = path.stat()
            # Before it is opened: a FIFO that nobody writes to must be refused, not waited for.
            if not stat.S_ISREG(status.st_mode):
                _unusable(option, f"{path} is not a regular file")
            if private and status.st_mode & (stat.S_IRWXG | stat.S_IRWXO):
                _unusable(option, f"{path} can be read by others: chmod 600 {path}")
            if status.st_size > MAX_FILE:
                _unusable(option, f"{path} is larger than {MAX_FILE} bytes")
            data = path.read_bytes()
        except (OSError, ValueError) as error:  # ValueError: a NUL in the path
            reason = error.strerror if isinstance(error, OSError) else None
            _unusable(option, f"{path} cannot be read: {reason or error}")
        self._contents.append(data)
        return data


class _PassphraseError(Exception):
    """OpenSSL asks for a passphrase."""


def _no_passphrase() -> NoReturn:
    """Keep OpenSSL from asking on the terminal."""
    raise _PassphraseError


def _unusable(option: str, message: str) -> NoReturn:
    raise _UnusableError(option, message)


def _expired(when: float) -> str:
    return f"has expired on {datetime.fromtimestamp(when, UTC):%Y-%m-%d}: renew it"


def _in_words(error: ssl.SSLError) -> str:
    return (error.reason or "unknown error").lower().replace("_", " ")
