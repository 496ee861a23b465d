"""The stages `decrypt` and `encrypt`: Mod-Gearman's encryption, byte for byte.

AES-256 in ECB mode under the bare password: no salt, no authentication. That is Mod-Gearman's
choice, and both of its ends expect it; it keeps honest people out and no more.
Keys come in as bytes, and nothing here shows one: not a message, not a repr().
"""

from collections.abc import Sequence
from typing import Final

from Crypto.Cipher import AES

from gevproxy.errors import StageError
from gevproxy.stages.payload import MOD_GEARMAN_STARTS, pack, unpack

BLOCK: Final = 16
"""Bytes that AES works on at once."""

KEY_SIZE: Final = 32
"""Bytes of a key for AES-256."""

_PADDING: Final = tuple(bytes(BLOCK - over) for over in range(BLOCK))
"""What follows a text, by the bytes that its last block has: a NUL at least."""

_WRONG_KEY: Final = "stage decrypt: wrong key? The text begins with neither type= nor host_name="


def aes_key(password: bytes) -> bytes:
    """Make a password into a key as Mod-Gearman does: filled up with NULs, cut to 32 bytes."""
    return password[:KEY_SIZE].ljust(KEY_SIZE, b"\0")


class Decrypt:
    """From a payload as Mod-Gearman encrypts it to its text, without the NULs at its end.

    The keys are tried in order, and the text shows which one is right: it is Mod-Gearman's or the
    key is wrong, there is no other sign. With `any_text` every text is right, and so is the first
    key always.
    """

    __slots__ = ("_any_text", "_ciphers")

    def __init__(self, passwords: Sequence[bytes], *, any_text: bool) -> None:
        # A cipher in ECB mode has no state: one serves for all jobs.
        self._ciphers = tuple(AES.new(aes_key(word), AES.MODE_ECB) for word in passwords)
        self._any_text = any_text

    def __call__(self, payload: bytes) -> bytes:
        """Return the text.

        Raises StageError for what is not base64 of whole blocks, and where no key is right.
        """
        encrypted = _blocks(payload)
        for cipher in self._ciphers:
            text = cipher.decrypt(encrypted).rstrip(b"\0")
            if self._any_text or text.startswith(MOD_GEARMAN_STARTS):
                return text
        raise StageError(_WRONG_KEY)

    def row(self, payloads: Sequence[bytes]) -> list[bytes]:
        """Return the texts of many payloads, as calls for each would; StageError where one raises.

        Every block stands alone in ECB, so a row is decrypted at once: a call of the library costs
        1.6 us here, AES itself 0.05 us for a check of 500 bytes.
        """
        encrypted = [_blocks(payload) for payload in payloads]
        texts = [b""] * len(encrypted)
        left = list(range(len(encrypted)))
        for cipher in self._ciphers:
            clear = cipher.decrypt(b"".join([encrypted[number] for number in left]))
            numbers, left, end = left, [], 0
            for number in numbers:
                begin, end = end, end + len(encrypted[number])
                text = clear[begin:end].rstrip(b"\0")
                if self._any_text or text.startswith(MOD_GEARMAN_STARTS):
                    texts[number] = text
                else:
                    left.append(number)
            if not left:
                return texts
        raise StageError(_WRONG_KEY)


def _blocks(payload: bytes) -> bytes:
    """Unpack what is to be decrypted: one block at least, and whole ones."""
    encrypted = unpack(payload, "decrypt")
    if not encrypted:
        raise StageError("stage decrypt: the payload is empty")
    if len(encrypted) % BLOCK:
        raise StageError(
            f"stage decrypt: cut off, or not encrypted? {len(encrypted)} bytes are "
            f"no whole number of {BLOCK}-byte blocks"
        )
    return encrypted


class Encrypt:
    """From a text to a payload as Mod-Gearman encrypts it.

    Mod-Gearman's C code encrypts the text with the NUL that ends it and reads what it decrypts up
    to that NUL: a text whose length is a multiple of 16 gets a whole block of them.
    """

    __slots__ = ("_cipher",)

    def __init__(self, password: bytes) -> None:
        self._cipher = AES.new(aes_key(password), AES.MODE_ECB)

    def __call__(self, text: bytes) -> bytes:
        """Return the payload; there is no text that cannot be encrypted."""
        return pack(self._cipher.encrypt(text + _PADDING[len(text) % BLOCK]))

    def row(self, texts: Sequence[bytes]) -> list[bytes]:
        """Return the payloads of many texts, as calls for each would; see `Decrypt.row`."""
        padded = [text + _PADDING[len(text) % BLOCK] for text in texts]
        encrypted = self._cipher.encrypt(b"".join(padded))
        payloads, end = [], 0
        for text in padded:
            begin, end = end, end + len(text)
            payloads.append(pack(encrypted[begin:end]))
        return payloads
