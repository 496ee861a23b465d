"""A few seconds of fuzz.py for each of its targets; run it by hand for longer."""

import os
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

from tests.kit.relay import ROOT

SECONDS = 3
HAS_WHEEL = sys.version_info < (3, 14) and os.uname().machine == "x86_64"


@pytest.fixture(scope="session")
def has_atheris() -> None:
    """Skip where there is no atheris for this Python, and fail where there should be."""
    if find_spec("atheris") is None:
        version = f"{sys.version_info.major}.{sys.version_info.minor} on {os.uname().machine}"
        if HAS_WHEEL:
            pytest.fail("atheris is not installed, although it is in the extra `dev`")
        pytest.skip(f"atheris has no wheel for Python {version}")


@pytest.mark.usefixtures("has_atheris")
@pytest.mark.parametrize("target", ["packet", "worker", "client", "config", "decrypt"])
def test_nothing_is_found_in_a_few_seconds(target: str, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "tests.hostile.fuzz", target, f"-max_total_time={SECONDS}"]
    command += [f"-artifact_prefix={tmp_path}/", str(tmp_path)]
    run = subprocess.run(
        command, cwd=ROOT, capture_output=True, text=True, errors="replace", check=False
    )
    assert run.returncode == 0, run.stderr[-3000:]
    assert "Done" in run.stderr
