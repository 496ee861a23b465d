"""Where keys come from, and what is said (and not said) when there is none."""

import os
from pathlib import Path

import pytest

from gevproxy.config import resolve_key
from gevproxy.errors import ConfigError


def key_file(path: Path, content: bytes, mode: int = 0o600) -> Path:
    """Write a key file and return its path."""
    path.write_bytes(content)
    path.chmod(mode)
    return path


def test_a_password_is_the_key() -> None:
    assert resolve_key("pass wörd\n", environ={}) == "pass wörd\n".encode()


@pytest.mark.parametrize(
    ("content", "key"),
    [
        (b"secret", b"secret"),
        (b"secret\n", b"secret"),
        (b"secret\r\n", b"secret"),
        (b"secret \t\v\f\r", b"secret"),
        (b"secret\n\n", b"secret"),
        (b"secret\nsecond line\n", b"secret"),
        (b" s\xff\xa0", b" s\xff\xa0"),
        (b"secret\0more\n", b"secret"),
        (b"k" * 32 + b"\n", b"k" * 32),
        (b"k" * 33, b"k" * 32),
        (b"k" * 31 + b" and so on", b"k" * 31),
    ],
)
def test_a_key_in_a_file_or_credential_is_what_mod_gearman_reads_there(
    tmp_path: Path, content: bytes, key: bytes
) -> None:
    """That is fgets() with room for 32 bytes, white space at the end taken off."""
    path = key_file(tmp_path / "k", content)
    environ = {"CREDENTIALS_DIRECTORY": str(tmp_path)}
    assert resolve_key(f"file:{path}", environ={}) == key
    assert resolve_key("credential:k", environ=environ) == key


@pytest.mark.parametrize("mode", [0o604, 0o640, 0o620, 0o601])
def test_a_key_file_is_its_owners_alone(tmp_path: Path, mode: int) -> None:
    path = key_file(tmp_path / "k", b"secret", mode)
    with pytest.raises(ConfigError, match=f"chmod 600 {path}"):
        resolve_key(f"file:{path}", environ={})


def test_systemd_guards_a_credential_whatever_its_mode(tmp_path: Path) -> None:
    key_file(tmp_path / "k", b"secret", 0o440)
    assert resolve_key("credential:k", environ={"CREDENTIALS_DIRECTORY": str(tmp_path)})


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "is empty"),
        (b" \r\n\0\n", "is empty"),
        (b"\nsecret\n", "begins with an empty line: the key is the first line"),
        (b"secret" * 1000, "larger than"),
    ],
)
def test_a_file_that_holds_no_key(tmp_path: Path, content: bytes, reason: str) -> None:
    path = key_file(tmp_path / "k", content)
    with pytest.raises(ConfigError, match=reason) as caught:
        resolve_key(f"file:{path}", environ={})
    assert "secret" not in str(caught.value)


def test_what_is_no_file_is_refused_and_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo", 0o600)
    for path in (tmp_path, tmp_path / "fifo", Path("/dev/null")):
        with pytest.raises(ConfigError, match="not a regular file"):
            resolve_key(f"file:{path}", environ={})


@pytest.mark.parametrize(
    ("spec", "reason"),
    [
        ("file:", "not a regular file"),
        ("file:/does/not/exist", "No such file"),
        ("file:/a\0b", "embedded null"),
        ("credential:missing", "No such file"),
        ("credential:", "no valid name"),
        ("credential:..", "no valid name"),
        ("credential:a/b", "no valid name"),
    ],
)
def test_a_key_that_is_not_to_be_had(tmp_path: Path, spec: str, reason: str) -> None:
    with pytest.raises(ConfigError, match=reason):
        resolve_key(spec, environ={"CREDENTIALS_DIRECTORY": str(tmp_path)})


def test_a_credential_outside_of_systemd_names_the_variable() -> None:
    with pytest.raises(ConfigError, match=r"\$CREDENTIALS_DIRECTORY is not set"):
        resolve_key("credential:k", environ={})
