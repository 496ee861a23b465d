"""The outside of a Mod-Gearman text: its base64, and how the text is known by its beginning.

Bytes in, bytes out. Whatever cannot be unpacked is a StageError, which never shows the payload.
"""

from binascii import Error, a2b_base64, b2a_base64
from collections.abc import Callable
from typing import Final

from gevproxy.errors import StageError

Transform = Callable[[bytes], bytes]
"""One step of a pipeline. Raises StageError and nothing else.

Steps pass the bare text on: only a callback needs to know the job, and a Job made for each step
(0.19 us) would cost a pipeline of four as much as its base64.
"""

MOD_GEARMAN_STARTS: Final = (b"type=", b"host_name=")
"""How each of Mod-Gearman's texts begins: a check, eventhandler or notification; a result."""

_WHITE_SPACE: Final = b" \t\n\v\f\r"


def unpack(payload: bytes, stage: str) -> bytes:
    r"""Decode base64, strictly but for ASCII white space anywhere in it.

    Mod-Gearman's C code sends a single line, its Perl code lines of 76 columns, each with a "\n".
    Raises StageError, worded as the stage's, for anything that is not base64.
    """
    try:
        return a2b_base64(payload, strict_mode=True)
    except Error:
        # Only now is white space looked for: what comes from C has none.
        packed = payload.translate(None, _WHITE_SPACE)
    try:
        return a2b_base64(packed, strict_mode=True)
    except Error:
        raise StageError(f"stage {stage}: the payload is not base64: cut off, or raw?") from None


def pack(text: bytes) -> bytes:
    """Encode as one line of base64, as Mod-Gearman's C code does and its decoder wants it."""
    return b2a_base64(text, newline=False)


def decode(payload: bytes) -> bytes:
    """Unpack an unencrypted text. Mod-Gearman sends it without a NUL at its end."""
    return unpack(payload, "decode")


def check(text: bytes) -> bytes:
    """Return an unencrypted text if it is Mod-Gearman's, else raise StageError."""
    if not text.startswith(MOD_GEARMAN_STARTS):
        raise StageError(
            "stage decode: encrypted? The text begins with neither type= nor host_name="
        )
    return text
