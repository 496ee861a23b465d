"""What cannot be converted: exit code 78, the place and a remedy, and never a password."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.convert.kit import Convert
from tests.kit.eventually import eventually

QUEUE = '$queues->{"h/q"} = { remoteQueue => "t/q", decrypt => "s3cret" };\n'

BROKEN = {
    "syntax": (QUEUE + '$key = "s3cret" "s3cret";\n', ":2: Perl cannot compile this file"),
    "brace": (QUEUE + "$queues = { decrypt => 's3cret',\n", ": Perl cannot compile this file"),
    "string": (QUEUE + '$key = "s3cret;\n', ":2: Perl cannot compile this file"),
    "regex": (QUEUE + "$key =~ s/s3cret[a--b]//;\n", ":2: Perl cannot compile this file"),
    "strict": ('use strict;\n$key = "s3cret";\n', ":2: Perl cannot compile this file"),
    "dies": (QUEUE + '\ndie "s3cret";\n', ":3: the file dies here, and the Perl proxy silently"),
    "object": (QUEUE + 'die { key => "s3cret" };\n', ": the file dies here"),
    "method": (QUEUE + '$k = "s3cret"; $k->x;\n', ":2: the file dies here"),
    "module": (
        "use No::Such::Module;\n" + QUEUE,
        ":1: this needs the Perl module No::Such::Module",
    ),
    "require": (QUEUE + 'require "./gone.pl";\n', ":2: this needs the file ./gone.pl"),
    "exit": (QUEUE + "exit 0;\n", ":2: the file ends the program here with exit"),
    "exec": (QUEUE + 'exec "true";\n', ": perl ended with 0 and without an answer"),
    "signal": (QUEUE + 'kill "KILL", $$;\n', ": perl ended with -9 and without an answer"),
    "no queue": ("$queue = 's3cret';\n1;\n", ": no queues are configured: queues are set as"),
    "lexical": ("my $queues = { 'h/s3cret' => 't/q' };\n", ": no queues are configured"),
    "hash": ("%queues = ('h/q' => 's3cret');\n", ": no queues are configured"),
    "text": ("$queues = 's3cret';\n", ": after this file $queues is no hash"),
    "missing": ('do "./gone.cfg";\n', ":1: ./gone.cfg is not found from here"),
    "included": ('do "./inc.cfg"; $@ = "";\n', "inc.cfg:1: Perl cannot compile this file"),
    "endless": ("1 while 1;\n", ": perl was not done after 0.5 s and was stopped: see --timeout"),
}


@pytest.mark.parametrize("name", BROKEN)
def test_a_file_that_cannot_be_read(convert: Convert, name: str) -> None:
    text, words = BROKEN[name]
    convert.perl('$key = "s3cret" "s3cret";\n', "inc.cfg")
    limit = ("--timeout", "0.5") if name == "endless" else ()
    done = convert(convert.perl(text), *limit, "--output", "new.json")
    assert (done.code, done.out) == (78, "")
    assert words in done.err
    assert "s3cret" not in done.err
    assert "error: " in done.err
    assert not (convert.folder / "new.json").exists()


def test_all_of_a_program_ends_with_its_time(convert: Convert) -> None:
    """What the file has started does not go on behind our back."""
    file = convert.perl("system 'echo $$ > pid; sleep 1000';\n" + QUEUE)
    done = convert(file, "--timeout", "1")
    assert done.code == 78
    pid = (convert.folder / "pid").read_text().strip()
    eventually(lambda: not _lives(pid), what=f"the end of {pid}")


def _lives(pid: str) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


def test_there_is_no_perl(convert: Convert) -> None:
    file = convert.perl(QUEUE)
    convert.patch.setenv("PATH", str(convert.folder))
    done = convert(file)
    assert done.code == 78
    assert "perl cannot be started (No such file or directory)" in done.err


def test_perl_lacks_its_core_modules(convert: Convert) -> None:
    """As with Debian's perl-base: a perl that finds no module stands for it."""
    perl = shutil.which("perl")
    wrapper = convert.folder / "perl"
    wrapper.write_text(f'#!/bin/sh\nexec {perl} "-Mlib=/none" "-e" "exit 2"\n')
    wrapper.chmod(0o755)
    file = convert.perl(QUEUE)
    convert.patch.setenv("PATH", f"{convert.folder}:{os.environ['PATH']}")
    done = convert(file)
    assert done.code == 78
    assert (
        "perl lacks its core modules JSON::PP or B::Deparse (Debian: the package perl)" in done.err
    )


@pytest.mark.parametrize(
    ("paths", "words"),
    [
        (["gone.cfg"], "gone.cfg: there is no such file"),
        (["empty"], "empty: the folder holds no *.cfg and no *.conf"),
        (["gone.cfg", "empty"], "empty: the folder holds no *.cfg"),
        ([], "/etc/mod-gearman/gearman_proxy.cfg"),
    ],
)
def test_there_is_no_file(convert: Convert, paths: list[str], words: str) -> None:
    (convert.folder / "empty").mkdir()
    done = convert(*paths)
    assert done.code == 78
    assert words in done.err


def test_without_a_file_the_search_path_is_read(convert: Convert) -> None:
    """All of it that is there, as the Perl proxy does, and nothing else."""
    convert.perl('$queues->{"h/home"} = "t/home";', "home/.gearman_proxy")
    convert.perl('$queues->{"h/site"} = "t/site";', "site/etc/mod-gearman/proxy.cfg")
    assert '"h:4730/site"' not in convert().out
    convert.patch.setenv("OMD_ROOT", str(convert.folder / "site"))
    done = convert()
    assert done.code == 0
    assert '"h:4730/home": "t:4730/home"' in done.out
    assert '"h:4730/site": "t:4730/site"' in done.out


def test_a_file_may_write_and_read_what_it_likes(convert: Convert) -> None:
    """Its output does not get into ours, and there is no input to wait for."""
    noise = 'print "{}\\n" x 100_000; warn "s3cret\\n" x 1000; my $line = <STDIN>; close STDOUT;\n'
    done = convert(convert.perl(noise + QUEUE.replace("s3cret", "x")))
    assert done.out.startswith('{\n  "$comment"')
    assert "s3cret" not in done.err


def test_as_a_program_of_its_own(tmp_path: Path) -> None:
    """On gevent's patched loop, and with the help that says what running means."""
    file = tmp_path / "gearman_proxy.cfg"
    file.write_text('$queues->{"h/q"} = "t/q";\n')
    program = [sys.executable, "-m", "gevproxy", "convert"]
    reads = [*program, str(file)]
    done = subprocess.run(reads, capture_output=True, text=True, timeout=60, check=True)
    assert '"h:4730/q": "t:4730/q"' in done.stdout
    file.write_text("sleep 1000;\n")
    limited = [*reads, "--timeout", "0.3"]
    failed = subprocess.run(limited, capture_output=True, text=True, timeout=60, check=False)
    assert failed.returncode == 78
    assert "not done after 0.3 s" in failed.stderr
    shown = subprocess.run([*program, "--help"], capture_output=True, text=True, check=True)
    assert "no other way to read them than to RUN them" in shown.stdout
