"""Mod-Gearman's encryption as a site's own programs have it, quick enough for a million jobs."""

from base64 import b64decode, b64encode

from Crypto.Cipher import AES
from Crypto.Cipher._mode_ecb import EcbMode

from tests.chaos.tally import Tally

HERE, THERE = "a password here", "another password there"
BLOCK = 16
TEXT = bytes(range(33, 127)) * 3000  # no NUL: one ends a Mod-Gearman text


def cipher(password: str) -> EcbMode:
    """Return AES-256 in ECB mode under a password, filled up with NULs."""
    return AES.new(password.encode().ljust(32, b"\0"), AES.MODE_ECB)


class SealedTally(Tally):
    """Jobs that are encrypted with one password when they are sent, and arrive with another."""

    filler = TEXT
    head = b"host_name=here\n"

    def __init__(self, queue: bytes, count: int) -> None:
        super().__init__(queue, count)
        self.sealing, self.opening = cipher(HERE), cipher(THERE)

    def payload(self, number: int) -> bytes:
        """Encrypt a job."""
        text = self.workload(number)
        return b64encode(self.sealing.encrypt(text + bytes(BLOCK - len(text) % BLOCK)))

    def arrive(self, payload: bytes) -> int:
        """Decrypt an arrival and book it."""
        return super().arrive(self.opening.decrypt(b64decode(payload)).rstrip(b"\0"))
