"""What a configuration means: defaults, kinds of forwards, several files, default places."""

import json
import tempfile
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gevproxy.config import (
    Config,
    Expect,
    ForwardConfig,
    OnDisconnect,
    Payload,
    SetField,
    Substitute,
    UniquePolicy,
    load,
    parse_address,
)
from gevproxy.config.build import _OPTIONS, _SETTINGS
from gevproxy.errors import ConfigError
from gevproxy.gearman.job import Priority

EXAMPLES = Path(__file__).parents[2] / "schema" / "examples"
SOURCE, TARGET = "127.0.0.1:4730/a", "192.168.1.33:4730/a"
MIB = 1024 * 1024


def write(path: Path, content: dict[str, Any]) -> Path:
    """Write a configuration file and return its path."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content), encoding="utf-8")
    return path


def forward(folder: Path, options: dict[str, Any], **settings: Any) -> ForwardConfig:  # noqa: ANN401
    """Load a configuration with one forward and return it."""
    queues = {SOURCE: {"remote_queue": TARGET} | options}
    path = write(folder / "x.json", {"queues": queues} | settings)
    (only,) = load([path], environ={}).forwards
    return only


def test_a_plain_forward() -> None:
    config = load([EXAMPLES / "minimal.json"], environ={})
    out, back = config.forwards
    assert out.key == "127.0.0.1:4730/hostgroup_network_b"
    assert str(out.target) == "192.168.1.33:4730/hostgroup_network_b"
    assert back.key == "192.168.1.33:4730/check_results"
    assert config == Config(forwards=(out, back))


def test_a_synchronous_forward_has_a_window_of_its_workers(tmp_path: Path) -> None:
    """And keeps nothing, and passes no unique on, whatever the defaults say."""
    defaults = {"window": 5, "hold": 60, "unique": "keep", "workers": 7}
    sync = forward(tmp_path, {"async": False}, defaults=defaults)
    assert (sync.asynchronous, sync.workers, sync.window) == (False, 7, 7)
    assert (sync.hold, sync.unique) == (0.0, UniquePolicy.NONE)


def test_defaults_apply_where_they_fit_and_the_queue_says_nothing(tmp_path: Path) -> None:
    defaults = {"async": False, "workers": 7, "timeout": 9, "on_disconnect": "fail", "hold": None}
    sync = forward(tmp_path, {"workers": 3}, defaults=defaults)
    assert (sync.workers, sync.timeout, sync.on_disconnect) == (3, 9.0, OnDisconnect.FAIL)
    other = forward(tmp_path, {"async": True}, defaults=defaults)
    assert (other.workers, other.timeout, other.on_disconnect) == (1, None, OnDisconnect.REQUEUE)
    assert other.hold is None


def test_null_switches_off_what_the_defaults_switch_on(tmp_path: Path) -> None:
    defaults = {"decrypt": "a", "encrypt": "b", "data_callback": "m:f", "rewrite": {"set": {}}}
    on = forward(tmp_path, {}, defaults=defaults)
    assert (on.decrypt, on.encrypt, on.data_callback) == (("a",), "b", "m:f")
    off = dict.fromkeys(("decrypt", "encrypt", "data_callback")) | {"rewrite": []}
    assert forward(tmp_path, off, defaults=defaults) == forward(tmp_path, {})


@pytest.mark.parametrize(
    ("options", "expect"),
    [
        ({}, Expect.ANY),
        ({"encrypt": "k"}, Expect.ANY),
        ({"decrypt": "k"}, Expect.MOD_GEARMAN),
        ({"decrypt": ["k"], "expect": "any"}, Expect.ANY),
        ({"expect": "mod_gearman"}, Expect.MOD_GEARMAN),
    ],
)
def test_a_forward_that_decrypts_expects_mod_gearman(
    tmp_path: Path, options: dict[str, Any], expect: Expect
) -> None:
    assert forward(tmp_path, options).expect is expect


@pytest.mark.parametrize(("forwards", "size"), [(1, 64), (8, 64), (16, 32), (512, 1)])
def test_many_forwards_share_their_windows_bytes(tmp_path: Path, forwards: int, size: int) -> None:
    queues = {f"a/{number}": f"b/{number}" for number in range(forwards)}
    config = load([write(tmp_path / "x.json", {"queues": queues})], environ={})
    assert {each.window_bytes for each in config.forwards} == {size * MIB}


def test_every_option_arrives(tmp_path: Path) -> None:
    rewrite = [
        {"pattern": "^ü$", "replace": "\\g<0>"},
        {"set": {"a": "ö", "b": "", "$comment": ""}},
    ]
    full = forward(
        tmp_path,
        {
            "window": 5.0,
            "window_bytes": 4096,
            "hold": 1.5,
            "priority": "low",
            "unique": "none",
            "decrypt": ["one", "two"],
            "encrypt": "three",
            "rewrite": rewrite,
            "data_callback": "site.rules:special",
            "payload": "raw",
        },
    )
    assert full == ForwardConfig(
        source=parse_address(SOURCE),
        target=parse_address(TARGET),
        window=5,
        window_bytes=4096,
        hold=1.5,
        priority=Priority.LOW,
        unique=UniquePolicy.NONE,
        decrypt=("one", "two"),
        encrypt="three",
        rewrite=(
            Substitute("^ü$".encode(), b"\\g<0>"),
            SetField(b"a", "ö".encode()),
            SetField(b"b", b""),
        ),
        data_callback="site.rules:special",
        payload=Payload.RAW,
        expect=Expect.MOD_GEARMAN,
    )
    assert isinstance(full.window, int)


def test_a_key_counts_in_comparison_and_is_never_shown(tmp_path: Path) -> None:
    one = forward(tmp_path, {"decrypt": "s3cret", "encrypt": "s3cret"})
    other = forward(tmp_path, {"decrypt": "s3cret", "encrypt": "s3cret2"})
    assert one != other
    assert one == forward(tmp_path, {"decrypt": "s3cret", "encrypt": "s3cret"})
    assert "s3cret" not in repr(one) + repr(Config(forwards=(one, other)))


def test_relative_paths_start_at_their_file(tmp_path: Path) -> None:
    (tmp_path / "key").write_bytes(b"k")
    (tmp_path / "key").chmod(0o600)
    (tmp_path / "calls.py").touch()
    options = {"decrypt": "file:key", "encrypt": "file:key", "data_callback": "calls.py:f"}
    content = {"queues": {SOURCE: {"remote_queue": TARGET} | options}}
    path = write(tmp_path / "x.json", content | {"log_file": "log", "dead_letters": "dead"})
    config = load([path], environ={})
    assert config.forwards[0].decrypt == (f"file:{tmp_path}/key",)
    assert config.forwards[0].encrypt == f"file:{tmp_path}/key"
    assert config.forwards[0].data_callback == f"{tmp_path}/calls.py:f"
    assert (config.log_file, config.dead_letters) == (f"{tmp_path}/log", tmp_path / "dead")


@pytest.mark.parametrize(
    ("environ", "folder"),
    [
        ({"STATE_DIRECTORY": "/s:/t", "XDG_STATE_HOME": "/x", "HOME": "/h"}, Path("/s")),
        ({"XDG_STATE_HOME": "/x", "HOME": "/h"}, Path("/x/gevproxy")),
        ({"HOME": "/h"}, Path("/h/.local/state/gevproxy")),
        ({}, None),
    ],
)
def test_where_dead_letters_go_by_default(environ: dict[str, str], folder: Path | None) -> None:
    assert load([EXAMPLES / "minimal.json"], environ=environ).dead_letters == folder


def test_files_and_folders_become_one(tmp_path: Path) -> None:
    """A folder's files come in name order, *.json only and none hidden; each counts once."""
    first = write(tmp_path / "first.json", {"debug": True, "status": {"critical_after": 5}})
    write(tmp_path / "d" / "20.json", {"queues": {"c/q": "d/q"}, "defaults": {"window": 7}})
    write(tmp_path / "d" / "10.json", {"queues": {"a/q": "b/q"}, "defaults": {"hold": 8}})
    (tmp_path / "d" / ".30.json").touch()
    (tmp_path / "d" / "40.json.dpkg-old").touch()
    config = load([str(first), tmp_path / "d", tmp_path / "d" / "10.json"], environ={})
    assert [each.key for each in config.forwards] == ["a:4730/q", "c:4730/q"]
    assert {(each.window, each.hold) for each in config.forwards} == {(7, 8.0)}
    assert (config.debug, config.status_critical_after) == (True, 5.0)


@pytest.mark.parametrize("names", [["gevproxy.json"], ["conf.d/x.json"]])
def test_the_default_places_are_read_as_far_as_they_exist(tmp_path: Path, names: list[str]) -> None:
    places = [tmp_path / "gevproxy.json", tmp_path / "conf.d"]
    (tmp_path / "conf.d").mkdir()
    for name in names:
        write(tmp_path / name, {"queues": {SOURCE: TARGET}})
    assert load(None, environ={}, default_paths=places).forwards[0].key == SOURCE


def test_without_any_configuration_the_problem_names_the_places_and_the_option(
    tmp_path: Path,
) -> None:
    places = [tmp_path / "gevproxy.json", tmp_path / "conf.d"]
    with pytest.raises(ConfigError) as caught:
        load(None, environ={}, default_paths=places)
    for word in (*places, "--config"):
        assert str(word) in str(caught.value)


OPTION_NAMES = sorted(
    {"queues", "defaults", "status", "critical_after", "set", "pattern", "replace", "$comment"}
    | set(_OPTIONS)
    | set(_SETTINGS)
    | {"remote_queue", "status_queue", SOURCE, TARGET, "a/q", "[::1", "workes", ""}
)
OPTION_VALUES = st.recursive(
    st.sampled_from([None, True, False, 0, -1, 3, 0.5, 1e300, 10**400, "", "a/q", "x", "fail"])
    | st.sampled_from([SOURCE, TARGET, "(", "\\1", "m:f", "x.py:f", "file:x", "credential:x"]),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(OPTION_NAMES), inner, max_size=6)
    ),
    max_leaves=30,
)


@settings(deadline=None)  # other work may slow the machine down
@given(
    st.fixed_dictionaries(
        {"queues": st.dictionaries(st.sampled_from([SOURCE, TARGET, "a/q"]), OPTION_VALUES)},
        optional=dict.fromkeys(set(OPTION_NAMES) - {"queues"}, OPTION_VALUES),
    )
)
def test_whatever_a_file_says_is_a_config_or_a_config_error(content: dict[str, Any]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = write(Path(folder) / "x.json", content)
        try:
            config = load([path], environ={})
        except ConfigError as error:
            assert all(problem.message for problem in error.problems)  # noqa: PT017 - or a Config
        else:
            assert config.forwards


def test_a_path_that_does_not_exist_does_not_hide_other_problems(tmp_path: Path) -> None:
    path = write(tmp_path / "x.json", {"queus": {}})
    with pytest.raises(ConfigError) as caught:
        load([tmp_path / "missing", path], environ={})
    missing, unknown = caught.value.problems
    assert missing.message == "there is no such file"
    assert unknown.pointer == "/queus"


@pytest.mark.parametrize("example", sorted(EXAMPLES.glob("*.json")), ids=lambda path: path.stem)
def test_every_example_is_a_good_configuration(tmp_path: Path, example: Path) -> None:
    """With the files that it names, here under a folder of the test's."""
    text = example.read_text(encoding="utf-8").replace("/etc/gevproxy", str(tmp_path))
    (tmp_path / "keys").mkdir()
    for name in ("keys/local", "local_key", "remote_key", "old_remote_key"):
        (tmp_path / name).write_text("a password\n", encoding="utf-8")
        (tmp_path / name).chmod(0o600)
    (tmp_path / "callbacks.py").touch()
    (tmp_path / "example.json").write_text(text, encoding="utf-8")
    assert json.loads(text)["description"]
    config = load([tmp_path / "example.json"], environ={"CREDENTIALS_DIRECTORY": str(tmp_path)})
    assert config.forwards


def test_the_examples_show_every_option() -> None:
    """Together they name each option of the schema at least once."""
    text = "".join(path.read_text(encoding="utf-8") for path in EXAMPLES.glob("*.json"))
    schema = json.loads((EXAMPLES.parent / "config.schema.json").read_text(encoding="utf-8"))
    for name in [*schema["properties"], *schema["$defs"]["forward"]["properties"]]:
        assert f'"{name}"' in text
