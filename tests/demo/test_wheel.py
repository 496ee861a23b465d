"""The wheel, installed where nothing of the checkout can be seen, does what the checkout does."""

import json
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest

from tests.demo.kit import ROOT, Demo


def run(*command: str | Path) -> str:
    """Return what a command writes; it may not fail."""
    done = subprocess.run(command, cwd=ROOT.parent, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{command}: {done.stdout}{done.stderr}"
    return done.stdout


@pytest.fixture(scope="module")
def environment(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Give a virtual environment with the wheel and this environment's other packages."""
    folder = tmp_path_factory.mktemp("wheel")
    pip = (sys.executable, "-m", "pip", "--disable-pip-version-check")
    run(*pip, "wheel", "--no-deps", "--no-build-isolation", "--wheel-dir", folder, ROOT)
    [wheel] = folder.glob("gevproxy-*.whl")
    environment = folder / "venv"
    run(sys.executable, "-m", "venv", "--without-pip", environment)
    python = environment / "bin" / "python"
    run(*pip, "--python", python, "install", "--no-deps", "--no-index", wheel)
    # Only the folder: an editable gevproxy in it hangs on a .pth of its own, which is not followed.
    [packages] = environment.glob("lib/python*/site-packages")
    (packages / "dependencies.pth").write_text(sysconfig.get_path("purelib"))
    return environment


def test_is_the_wheel_that_is_tested(environment: Path) -> None:
    code = "import gevproxy; print(gevproxy.__file__)"
    assert run(environment / "bin" / "python", "-c", code).startswith(str(environment))


def test_has_the_schema(environment: Path) -> None:
    schema = run(environment / "bin" / "gevproxy", "schema")
    assert json.loads(schema) == json.loads((ROOT / "schema" / "config.schema.json").read_text())


def test_converts_a_perl_configuration(environment: Path, tmp_path: Path) -> None:
    """The script that Perl runs is in the wheel too."""
    file = tmp_path / "gearman_proxy.cfg"
    file.write_text('$queues->{"a/q"} = "b/q";\n')
    written = json.loads(run(environment / "bin" / "gevproxy", "convert", file))
    assert written["queues"] == {"a:4730/q": "b:4730/q"}


def test_shows_the_demo(environment: Path, tmp_path: Path) -> None:
    program = [str(environment / "bin" / "gevproxy")]
    with Demo(tmp_path, "--jobs", "500", program=program, cwd=tmp_path) as demo:
        assert demo.wait() == 0, demo.text
        assert demo.row("results back") == 500
