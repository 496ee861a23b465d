"""Mod-Gearman payloads as its programs make them, written from their formats alone.

Encryption is done by the openssl command, so that nothing here can be wrong together with the
program under test.
"""

import base64
import subprocess
from binascii import hexlify

CHECK = (
    b"type=service\nresult_queue=check_results\ntarget_queue=hostgroup_network_b\n"
    b"host_name=host012\nservice_description=svc00152\ncore_time=1795484776.726245\ntimeout=60\n"
    b"command_line=/usr/lib/nagios/plugins/check_x -w 1 -c 2\n\n\n"
)
RESULT = (
    b"host_name=host011\ncore_start_time=0.000000\nstart_time=1795484776.7\n"
    b"finish_time=1795484777.0\nreturn_code=0\nexited_ok=1\n"
    b"source=Mod-Gearman Worker @\302\240rig\nservice_description=svc00191\n"
    b"output=OK - fine|v=776\\nresult_queue=no header\n\n\n\n"
)

UNIQUE = b"5c7d4a7e-93f4-4d5c-8f46-2f1f7d9f2b0a"
"""A result's: a UUID in 36 characters."""


def large(text: bytes) -> bytes:
    """Return a result with an output of 10 MiB, in UTF-8 and in Latin-1, NBSP in both."""
    return text.replace(b"OK - fine", b"OK - " + b"long \302\240\240\\n" * (1024 * 1024))


def pad(text: bytes) -> bytes:
    """Return a text with at least one NUL behind it, in whole blocks, as the C code makes it."""
    return text + b"\0" * (16 - len(text) % 16)


def openssl(key: bytes, data: bytes, *, decrypt: bool = False) -> bytes:
    """Encrypt or decrypt whole blocks with AES-256-ECB; the key is cut or padded to 32 bytes."""
    padded = hexlify(key[:32].ljust(32, b"\0")).decode()
    command = ["openssl", "enc", "-aes-256-ecb", "-nopad", "-K", padded]
    if decrypt:
        command.append("-d")
    return subprocess.run(command, input=data, capture_output=True, check=True).stdout


def encrypt(key: bytes, text: bytes) -> bytes:
    """Return a payload as Mod-Gearman's C programs send it: one line of base64."""
    return base64.b64encode(openssl(key, pad(text)))


def decrypt(key: bytes, payload: bytes) -> bytes:
    """Return the text of a payload, which has a NUL behind it."""
    plain = openssl(key, base64.b64decode(payload, validate=True), decrypt=True)
    assert plain.endswith(b"\0")
    return plain.rstrip(b"\0")
