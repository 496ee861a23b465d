"""Fixtures of these tests: the command, run in a folder of its own."""

from pathlib import Path

import pytest

from tests.convert.kit import Convert


@pytest.fixture
def convert(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Convert:
    """Give the command."""
    return Convert(tmp_path, monkeypatch, capsys)
