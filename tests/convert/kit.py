"""`gevproxy convert` in this process, and the folders of styles/."""

import shutil
from pathlib import Path
from typing import NamedTuple

import pytest

from gevproxy import __version__
from gevproxy.cli import main

STYLES = Path(__file__).parent / "styles"


class Done(NamedTuple):
    """What a run left: exit code, standard output, standard error."""

    code: int
    out: str
    err: str


class Convert:
    """Runs `gevproxy convert` in a folder of its own, where there is no other configuration."""

    def __init__(
        self, folder: Path, patch: pytest.MonkeyPatch, capture: pytest.CaptureFixture[str]
    ) -> None:
        self.folder = folder
        self.patch = patch
        self.capture = capture
        patch.chdir(folder)
        for name in ("OMD_ROOT", "OMD_SITE", "GEARMAN_PORT", "PROXY_DEBUG"):
            patch.delenv(name, raising=False)
        patch.setenv("HOME", str(folder / "home"))

    def __call__(self, *arguments: str | Path) -> Done:
        """Run it and return what came of it."""
        self.capture.readouterr()
        code = main(["convert", *map(str, arguments)])
        out, err = self.capture.readouterr()
        assert "Traceback" not in err
        return Done(code, out, err)

    def perl(self, text: str, name: str = "gearman_proxy.cfg") -> Path:
        """Write a Perl configuration."""
        path = self.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        return path

    def style(self, name: str) -> list[str]:
        """Copy a style's files here and return the arguments that it is converted with."""
        shutil.copytree(STYLES / name, self.folder, dirs_exist_ok=True)
        environment = self.folder / "environment"
        if environment.exists():
            for line in environment.read_text().splitlines():
                variable, _, value = line.partition("=")
                self.patch.setenv(variable, value)
        paths = ["gearman_proxy.cfg"]
        if (self.folder / "conf.d").is_dir():
            paths.append("conf.d")
        return [*paths, "--callbacks", "callbacks.py"]

    def neutral(self, text: str) -> str:
        """Return an output without what differs from place to place."""
        return text.replace(str(self.folder), "{folder}").replace(__version__, "{version}")
