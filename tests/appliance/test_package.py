"""The .deb: what is in it, and what installing, upgrading, removing and purging it do."""

import gzip
import re
import subprocess
from pathlib import Path

import pytest

from tests.appliance.bed import Bed
from tests.appliance.conftest import FORWARDS, ROOT, Relay, build
from tests.appliance.traffic import SOURCE, TARGET, counts, finish

OUTSIDE = """\
/etc/gevproxy
/etc/gevproxy/conf.d
/usr/bin/gevproxy
/usr/lib/gevproxy
/usr/lib/gevproxy/bin
/usr/lib/gevproxy/bin/gevproxy
/usr/lib/gevproxy/bin/python
/usr/lib/gevproxy/lib
/usr/lib/gevproxy/pyvenv.cfg
/usr/lib/systemd/system/gevproxy.service
/usr/lib/systemd/system/gevproxy@.service
/usr/lib/sysusers.d/gevproxy.conf
/usr/lib/tmpfiles.d/gevproxy.conf
/usr/share/bash-completion/completions/gevproxy
/usr/share/doc/gevproxy/CHANGELOG.md.gz
/usr/share/doc/gevproxy/README.md.gz
/usr/share/doc/gevproxy/changelog.gz
/usr/share/doc/gevproxy/copyright
/usr/share/doc/gevproxy/examples/credentials.conf
/usr/share/doc/gevproxy/examples/firewall.conf
/usr/share/doc/gevproxy/examples/gevproxy.json
/usr/share/doc/gevproxy/examples/metrics.conf
/usr/share/fish/vendor_completions.d/gevproxy.fish
/usr/share/gevproxy/config.schema.json
/usr/share/gevproxy/grafana/gevproxy.json
/usr/share/gevproxy/prometheus/gevproxy.rules.yml
/usr/share/lintian/overrides/gevproxy
/usr/share/man/man1/gevproxy.1.gz
/usr/share/man/man5/gevproxy.json.5.gz
/usr/share/zsh/vendor-completions/_gevproxy
"""
"""Every path but those of Python modules, of schemas and of the schema's own examples."""

MANY = 20_000


def test_the_same_tree_gives_the_same_bytes(
    packages: dict[str, Path], tmp_path: Path, suite: str
) -> None:
    number = re.search(r"\+deb(\d+)_", packages[suite].name)
    assert number
    again = build(tmp_path, "--release", number[1])
    assert again[suite].read_bytes() == packages[suite].read_bytes()


def test_lintian_has_nothing_to_say(packages: dict[str, Path], suite: str) -> None:
    done = subprocess.run(
        ["lintian", "--allow-root", packages[suite]], capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stdout) == (0, "")


def test_what_is_in_it(packages: dict[str, Path], suite: str) -> None:
    listing = subprocess.run(
        ["dpkg-deb", "--contents", packages[suite]], capture_output=True, text=True, check=True
    )
    rows = [line.split(maxsplit=5) for line in listing.stdout.splitlines()]
    assert {owner for _, owner, *_ in rows} == {"root/root"}
    paths = {row[5].split(" -> ")[0].lstrip(".").rstrip("/") for row in rows}
    parents = {str(Path(path).parent) for path in paths} - {"/etc/gevproxy", "/usr/lib/gevproxy"}
    wanted = set(OUTSIDE.splitlines())
    ours = {
        path
        for path in paths
        if path not in parents | wanted
        and not re.search(r"site-packages|/examples/\w+\.json$|/\w+\.schema\.json$", path)
    }
    assert ours == set()
    assert wanted <= paths
    assert not [path for path in paths if re.search(r"\.pyc$|/tests?/", path)]


def test_it_says_whose_work_it_ships(fresh: Relay, packages: dict[str, Path]) -> None:
    """Each dependency is in the copyright file, with its licence."""
    fresh.install(packages[fresh.bed.suite])
    text = fresh.bed.out("cat", "/usr/share/doc/gevproxy/copyright")
    assert "License: unknown" not in text
    for name in ("gevent", "greenlet", "jsonschema", "pycryptodome", "python-json-logger"):
        assert re.search(rf"^Comment: {name} \d", text, re.MULTILINE)


def test_installing_starts_nothing_without_a_configuration(
    fresh: Relay, packages: dict[str, Path]
) -> None:
    fresh.bed.run("apt-get", "-q", "-y", "purge", "gevproxy", check=False)
    fresh.install(packages[fresh.bed.suite])
    assert fresh.bed.out("systemctl", "is-enabled", "gevproxy") == "enabled"
    assert fresh.show("ActiveState") == "inactive"
    assert "gevproxy" not in fresh.bed.out("systemctl", "list-units", "--failed", "--plain")
    modes = fresh.bed.out("stat", "-c%n %U:%G %a", "/etc/gevproxy", "/etc/gevproxy/keys")
    assert modes.splitlines() == [
        "/etc/gevproxy root:root 755",
        "/etc/gevproxy/keys root:gevproxy 750",
    ]


def test_it_starts_when_there_is_one(installed: Relay) -> None:
    assert installed.is_running()
    installed.passes(prefix="started")


def test_binaries_find_their_libraries(installed: Relay) -> None:
    """What the package depends on is enough for what its wheels bring."""
    text = installed.bed.out(
        "sh", "-c", "find /usr/lib/gevproxy -name '*.so*' -type f -exec ldd {} + 2>&1"
    )
    assert "not found" not in text


def test_manual_pages_render(installed: Relay) -> None:
    for page, words in (
        ("gevproxy(1)", "EXIT STATUS"),
        ("gevproxy.json(5)", "window_bytes (integer)"),
    ):
        done = installed.bed.run("man", "--warnings", page)
        assert words in re.sub(r".\x08", "", done.stdout)
        assert done.stderr == ""


@pytest.mark.parametrize(
    ("shell", "script"),
    [
        (
            "bash",
            (
                "source /usr/share/bash-completion/completions/gevproxy; "
                "COMP_WORDS=(gevproxy ch); COMP_CWORD=1; _gevproxy; echo ${COMPREPLY[@]}"
            ),
        ),
        ("zsh", "autoload -Uz compinit; compinit -u; whence -v _gevproxy; echo check"),
        ("fish", "complete -C 'gevproxy ch'"),
    ],
)
def test_completions_complete(installed: Relay, shell: str, script: str) -> None:
    done = installed.bed.run(shell, "-c", script)
    assert "check" in done.stdout
    assert done.stderr == ""
    if shell == "zsh":
        installed.bed.run("zsh", "-n", "/usr/share/zsh/vendor-completions/_gevproxy")


def test_the_examples_are_good(installed: Relay) -> None:
    example = "/usr/share/doc/gevproxy/examples/gevproxy.json"
    assert installed.bed.out("gevproxy", "check", "--config", example) == "ok: 2 forwards"


def test_the_command_imports_nothing_from_where_it_is_called(installed: Relay) -> None:
    """An operator may stand in anybody's folder."""
    done = installed.bed.run(
        "sh", "-c", "cd /tmp && echo 'raise SystemExit(9)' > json.py && gevproxy --version"
    )
    assert done.stdout.startswith("gevproxy ")


# --- Upgrade --------------------------------------------------------------------------------------


def test_an_upgrade_drains_and_goes_on(
    installed: Relay, previous: dict[str, Path], packages: dict[str, Path]
) -> None:
    """In the middle of the traffic: nothing is lost, nothing repeated, and a new process runs."""
    suite = installed.bed.suite
    installed.install(previous[suite])
    old = installed.pid
    took = installed.traffic.start("take", TARGET, "checks", MANY, "upgrade")
    sent = installed.trickle(MANY, "upgrade")
    installed.install(packages[suite])
    finish(sent)
    assert counts(took) == [MANY, MANY]
    assert installed.pid not in (0, old)
    assert installed.show("NRestarts") == "0"


def test_an_upgrade_that_refuses_the_configuration_leaves_the_old_one_running(
    installed: Relay, previous: dict[str, Path], packages: dict[str, Path]
) -> None:
    suite = installed.bed.suite
    installed.install(previous[suite])
    old = installed.pid
    installed.configure(FORWARDS, no_such_option=True)
    try:
        said = installed.install(packages[suite])
        assert "/no_such_option" in said
        assert "NOT restarted" in said
        assert installed.pid == old
        installed.passes(prefix="refused")
    finally:
        installed.configure()
        installed.bed.run("systemctl", "restart", "gevproxy")


def test_an_upgrade_asks_the_new_version_in_the_daemons_place(
    installed: Relay, previous: dict[str, Path], packages: dict[str, Path]
) -> None:
    """With its user, its credentials and its PYTHONPATH, or it would refuse what is good."""
    bed = installed.bed
    installed.install(previous[bed.suite])
    bed.run("install", "-Dm0600", "/dev/stdin", "/etc/gevproxy/credentials/key", stdin="secret\n")
    bed.write(
        "srv/callbacks/ours.py",
        "import os\nassert os.getuid()\ndef same(data, job):\n    return data\n",
    )
    drop_in = "etc/systemd/system/gevproxy.service.d/ours.conf"
    bed.write(
        drop_in,
        "[Service]\nLoadCredential=key:/etc/gevproxy/credentials/key\n"
        "Environment=PYTHONPATH=/srv/callbacks\n",
    )
    forward = {
        "remote_queue": f"127.0.0.1:{TARGET}/ours",
        "encrypt": "credential:key",
        "data_callback": "ours:same",
    }
    installed.configure({**FORWARDS, f"127.0.0.1:{SOURCE}/ours": forward})
    try:
        bed.run("systemctl", "daemon-reload")
        bed.run("systemctl", "restart", "gevproxy")
        old = installed.pid
        said = installed.install(packages[bed.suite])
        assert "NOT restarted" not in said, said
        assert installed.pid not in (0, old)
    finally:
        (bed.root / drop_in).unlink()
        installed.configure()
        bed.run("systemctl", "daemon-reload")
        bed.run("systemctl", "restart", "gevproxy")


def test_an_upgrade_leaves_what_was_disabled_disabled(
    installed: Relay, previous: dict[str, Path], packages: dict[str, Path]
) -> None:
    suite = installed.bed.suite
    installed.install(previous[suite])
    installed.bed.run("systemctl", "disable", "--now", "gevproxy")
    installed.install(packages[suite])
    assert installed.show("ActiveState") == "inactive"
    assert installed.show("UnitFileState") == "disabled"
    installed.bed.run("systemctl", "enable", "--now", "gevproxy")


# --- Removal --------------------------------------------------------------------------------------


def exists(bed: Bed, *paths: str) -> list[bool]:
    return [(bed.root / path.lstrip("/")).exists() for path in paths]


STATE = "/var/lib/gevproxy/letter"
CONFIG = "/etc/gevproxy/gevproxy.json"
INSTANCE = "/var/lib/gevproxy-b/letter"


def test_removal_keeps_and_purge_removes(installed: Relay, packages: dict[str, Path]) -> None:
    bed = installed.bed
    for letter in (STATE, INSTANCE):
        bed.write(letter, "x")
    bed.run("apt-get", "-q", "-y", "remove", "gevproxy")
    assert installed.show("ActiveState") == "inactive"
    assert exists(bed, STATE, INSTANCE, CONFIG) == [True] * 3
    assert exists(bed, "/usr/lib/gevproxy", "/usr/bin/gevproxy") == [False] * 2

    installed.install(packages[bed.suite])
    assert installed.is_running()
    assert bed.out("systemctl", "is-enabled", "gevproxy") == "enabled"

    bed.run("apt-get", "-q", "-y", "purge", "gevproxy")
    assert installed.pid == 0
    gone = [STATE, INSTANCE, CONFIG, "/etc/gevproxy", "/var/lib/gevproxy", "/usr/lib/gevproxy"]
    assert exists(bed, *gone) == [False] * len(gone)
    # man-db keeps what it has shown once.
    found = bed.out("find", "/", "-xdev", "-name", "*gevproxy*", "-not", "-path", "/root/*")
    assert [path for path in found.splitlines() if not path.startswith("/var/cache/man/")] == []
    bed.run("id", "gevproxy")  # the user stays, as is Debian's way


def test_the_changelog_of_the_package_is_debians(packages: dict[str, Path], suite: str) -> None:
    tar = subprocess.run(
        ["dpkg-deb", "--fsys-tarfile", packages[suite]], capture_output=True, check=True
    )
    changelog = subprocess.run(
        ["tar", "-xO", "./usr/share/doc/gevproxy/changelog.gz"],
        input=tar.stdout,
        capture_output=True,
        check=True,
    )
    text = gzip.decompress(changelog.stdout).decode()
    assert text.startswith(f"gevproxy ({packages[suite].name.split('_')[1]}) {suite};")
    assert (ROOT / "CHANGELOG.md").exists()
