"""Every broken configuration in broken/ gives exactly the text beside it.

`NN-name.json` is loaded by itself, a folder `NN-name/` as a folder; `NN-name.txt` is what a person
sees. Passwords in them contain "s3cret", which no text may.
"""

import shutil
from pathlib import Path

import pytest

from gevproxy.config import load
from gevproxy.errors import ConfigError

BROKEN = Path(__file__).parent / "broken"
TEXTS = sorted(BROKEN.glob("*.txt"))


@pytest.fixture
def workplace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Copy everything to where modes can be set, and go there: messages show relative paths."""
    folder = tmp_path / "broken"
    shutil.copytree(BROKEN, folder)
    (folder / "keys" / "open.key").chmod(0o644)
    (folder / "keys" / "empty.key").chmod(0o600)
    monkeypatch.chdir(folder)
    return folder


def seen_by_a_person(name: str) -> str:
    """Load a broken configuration out of the working directory and return what it says."""
    path = Path(name) if Path(name).is_dir() else Path(f"{name}.json")
    with pytest.raises(ConfigError) as caught:
        load([path], environ={})
    assert str(caught.value) == "\n".join(str(problem) for problem in caught.value.problems)
    return f"{caught.value}\n"


@pytest.mark.usefixtures("workplace")
@pytest.mark.parametrize("text", TEXTS, ids=lambda path: path.stem)
def test_a_broken_configuration_says_exactly_this(text: Path) -> None:
    assert seen_by_a_person(text.stem) == text.read_text(encoding="utf-8")


def test_every_broken_configuration_has_its_text() -> None:
    configurations = {path.stem for path in BROKEN.iterdir() if path.name[:2].isdigit()}
    assert configurations == {text.stem for text in TEXTS}
    assert len(configurations) >= 24


@pytest.mark.usefixtures("workplace")
def test_no_text_shows_a_traceback_or_a_key() -> None:
    everything = "".join(seen_by_a_person(text.stem) for text in TEXTS)
    assert "Traceback" not in everything
    assert "s3cret" not in everything
    assert "83713" not in everything
