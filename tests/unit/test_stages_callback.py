"""Callbacks: what they are told, what they may answer, and how they are loaded."""

import dataclasses
import operator
import sys
import traceback
from asyncio import CancelledError
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from gevent import GreenletExit

import gevproxy
from gevproxy.config.model import QueueAddress
from gevproxy.errors import ConfigError, StageError
from gevproxy.gearman.job import Handle, Job, Server
from gevproxy.stages.callback import Callback, CallbackJob
from gevproxy.stages.loader import load

SOURCE = QueueAddress(Server("::1"), "service")
TARGET = QueueAddress(Server("b.example", 4731), "remote")
JOB = Job(Handle(b"H:host:17"), b"service", b"unique", b"not for callbacks")
TEXT = b"type=service\npayload-4711\n"

Write = Callable[[str], str]


def callback(
    function: Callable[..., object],
    on_slow: Callable[[str, float], None] | None = None,
    clock: Callable[[], float] = lambda: 0.0,
) -> Callback:
    """Return a function as the stage that calls it."""
    return Callback("rules:special", function, SOURCE, TARGET, on_slow=on_slow, clock=clock)


def answer(returned: object) -> tuple[bytes, bytes] | None:
    """Return what a function's answer means."""
    return callback(lambda _data, _job: returned)(TEXT, JOB)


def refusal(stage: Callback) -> str:
    """Return why a callback's job is refused; the text must not come up, in a traceback either."""
    with pytest.raises(StageError) as caught:
        stage(TEXT, JOB)
    assert "payload-4711" not in "".join(traceback.format_exception(caught.value))
    return str(caught.value)


def problem(name: str) -> str:
    """Return why a callback cannot be loaded."""
    with pytest.raises(ConfigError) as caught:
        load(name)
    (found,) = caught.value.problems
    return found.message


@pytest.fixture
def write(tmp_path: Path) -> Write:
    """Give a function that writes a callback file and returns the name of its function `f`."""

    def write(source: str) -> str:
        path = tmp_path / "rules.py"
        path.write_text(source)
        return f"{path}:f"

    return write


@pytest.fixture
def packages(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Give a folder to import from; what was imported from it is forgotten."""
    monkeypatch.syspath_prepend(tmp_path)
    # A .pyc of the same second and size would hide the second edit of a test.
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    before = set(sys.modules)
    yield tmp_path
    for name in set(sys.modules) - before:
        del sys.modules[name]


# What it is told.


def test_a_callback_gets_the_text_and_knows_the_job() -> None:
    seen: list[object] = []

    def look(data: bytes, job: CallbackJob) -> bytes:
        seen.extend([data, job])
        return data

    assert callback(look)(TEXT, JOB) == (TEXT, b"unique")
    about = CallbackJob(
        source="[::1]:4730/service",
        target="b.example:4731/remote",
        queue="service",
        handle="H:host:17",
        unique=b"unique",
    )
    assert seen == [TEXT, about]
    with pytest.raises(dataclasses.FrozenInstanceError):
        about.queue = "x"  # type: ignore[misc]


# What it may answer.


def test_bytes_are_the_new_text() -> None:
    assert answer(b"new") == (b"new", b"unique")
    assert answer(b"") == (b"", b"unique")


def test_a_pair_is_the_new_text_and_unique() -> None:
    assert answer((b"new", b"other")) == (b"new", b"other")
    assert answer((b"new", b"")) == (b"new", b"")
    assert answer((b"new", b"u" * 64)) == (b"new", b"u" * 64)


def test_drop_drops() -> None:
    assert answer(gevproxy.DROP) is None
    assert repr(gevproxy.DROP) == "<Drop.DROP: 'drop'>"


@pytest.mark.parametrize(
    ("returned", "said"),
    [
        (None, "returned NoneType: forgotten return?"),
        ("payload-4711", "returned str: forgotten encode()?"),
        (bytearray(b"payload-4711"), "returned bytearray: it must be"),
        ([b"payload-4711", b"u"], "returned list: it must be"),
        ((b"payload-4711", "u"), "returned (bytes, str): it must be"),
        ((b"payload-4711", None), "returned (bytes, NoneType): it must be"),
        ((b"payload-4711",), "returned (bytes): it must be"),
        ((b"payload-4711", b"u", b"x"), "returned (bytes, bytes, bytes): it must be"),
        (gevproxy.Drop, "returned EnumType: it must be"),
        ("drop", "returned str"),
        (True, "returned bool: it must be"),
        ((b"x", b"a\0b"), "returned a unique with a NUL"),
        ((b"x", b"u" * 65), "returned a unique of 65 bytes: gearmand takes 64"),
    ],
)
def test_anything_else_is_refused(returned: object, said: str) -> None:
    shown = refusal(callback(lambda _data, _job: returned))
    assert shown.startswith(f"stage data_callback: rules:special {said}")


# When it raises.


def test_an_exception_is_told_by_type_and_place_but_not_by_its_message(write: Write) -> None:
    name = write("def f(data, job):\n    raise ValueError(data)\n")
    path = name.removesuffix(":f")
    assert refusal(callback(load(name))) == (
        f"stage data_callback: rules:special raised ValueError at {path}:2"
    )


def test_the_place_is_in_the_callbacks_own_file(write: Write) -> None:
    name = write(
        "import json\ndef f(data, job):\n    return g(data)\ndef g(x):\n    json.loads(x)\n"
    )
    path = name.removesuffix(":f")
    assert refusal(callback(load(name))).endswith(f"raised JSONDecodeError at {path}:5")


@pytest.mark.parametrize(
    "error",
    [
        SystemExit(1),
        MemoryError(),
        RecursionError(),
        StageError("payload-4711"),
        BaseException("payload-4711"),
        CancelledError(),
    ],
)
def test_whatever_a_callback_raises_is_a_stage_error(error: BaseException) -> None:
    def fail(_data: bytes, _job: CallbackJob) -> bytes:
        raise error

    assert f"rules:special raised {type(error).__name__} at " in refusal(callback(fail))


def test_a_greenlet_that_is_killed_is_no_failure() -> None:
    def killed(_data: bytes, _job: CallbackJob) -> bytes:
        raise GreenletExit

    with pytest.raises(GreenletExit):
        callback(killed)(TEXT, JOB)


def test_what_is_raised_from_outside_passes() -> None:
    def interrupted(_data: bytes, _job: CallbackJob) -> bytes:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        callback(interrupted)(TEXT, JOB)


# When it is slow.


@pytest.mark.parametrize(("seconds", "reported"), [(0.09, []), (0.25, [("rules:special", 0.25)])])
@pytest.mark.parametrize("returned", [TEXT, None])
def test_a_slow_callback_is_reported(
    seconds: float, reported: list[tuple[str, float]], returned: bytes | None
) -> None:
    now = 0.0
    slow: list[tuple[str, float]] = []

    def work(_data: bytes, _job: CallbackJob) -> bytes:
        nonlocal now
        now += seconds
        if returned is None:
            raise ValueError
        return returned

    stage = callback(work, lambda name, took: slow.append((name, took)), lambda: now)
    if returned is None:
        assert "ValueError" in refusal(stage)
    else:
        assert stage(TEXT, JOB) == (TEXT, b"unique")
    assert slow == reported


# How it is loaded.


def test_a_file_is_read_anew_each_time_and_leaves_nothing_beside_it(write: Write) -> None:
    name = write("def f(data, job): return b'1'\n")
    first = load(name)
    second = load(write("def f(data, job): return b'2'\n"))
    assert (first(b"", None), second(b"", None)) == (b"1", b"2")
    folder = Path(name).parent
    assert [path.name for path in folder.iterdir()] == ["rules.py"]


def test_each_load_of_a_file_has_globals_of_its_own(write: Write) -> None:
    name = write("n = []\ndef f(data, job):\n    n.append(1)\n    return bytes(n)\n")
    first, second = load(name), load(name)
    assert [first(b"", None), first(b"", None), second(b"", None)] == [b"\1", b"\1\1", b"\1"]


def test_a_file_that_breaks_leaves_what_was_loaded_as_it_was(write: Write) -> None:
    name = write("x = b'1'\ndef f(data, job): return x\n")
    running = load(name)
    before = dict(sys.modules)
    assert "ZeroDivisionError" in problem(write("x = b'2'\n1 / 0\n"))
    assert running(b"", None) == b"1"
    assert sys.modules == before


def test_a_file_may_hold_what_looks_its_module_up(write: Write) -> None:
    """Dataclasses with annotations as text need `sys.modules`."""
    source = "from __future__ import annotations\nfrom dataclasses import dataclass\n"
    source += "@dataclass\nclass A:\n    x: bytes\ndef f(data, job): return A(data).x\n"
    assert load(write(source))(b"y", None) == b"y"


def test_a_module_is_read_anew_with_its_package(packages: Path) -> None:
    package = packages / "site_rules"
    package.mkdir()
    (package / "__init__.py").write_text("")
    (package / "part.py").write_text("x = b'1'\n")
    (package / "checks.py").write_text("from . import part\ndef f(data, job): return part.x\n")
    first = load("site_rules.checks:f")
    (package / "part.py").write_text("x = b'2'\n")
    second = load("site_rules.checks:f")
    assert (first(b"", None), second(b"", None)) == (b"1", b"2")
    assert sys.modules["site_rules.checks"].__dict__["f"] is second


def test_a_module_that_breaks_leaves_what_was_loaded_as_it_was(packages: Path) -> None:
    (packages / "site_rule.py").write_text("x = b'1'\ndef f(data, job): return x\n")
    running = load("site_rule:f")
    before = dict(sys.modules)
    (packages / "site_rule.py").write_text("x = b'2'\nimport no_such_module\n")
    assert "no_such_module" in problem("site_rule:f")
    assert running(b"", None) == b"1"
    assert sys.modules == before


def test_what_the_program_runs_on_is_never_loaded_twice() -> None:
    before = dict(sys.modules)
    load("operator:concat")
    load("gevproxy.stages.payload:unpack")
    assert {name: sys.modules[name] for name in before} == before


@pytest.mark.parametrize(
    ("source", "said"),
    [
        ("x = 1\n", 'does not exist: there is no "f" in'),
        ("f = 1\n", "is no function but of type int"),
        ("def f(data): return data\n", "cannot be called with (data, job)"),
        ("async def f(data, job): return data\n", 'is an "async def"'),
        ("def f(data, job) return data\n", "SyntaxError"),
        ("import sys\nsys.exit(1)\n", "SystemExit"),
        ("def g(): raise OSError('why')\ng()\n", "OSError: why at "),
        ("\nimport no_such_module\n", "No module named 'no_such_module' at "),
    ],
)
def test_what_cannot_be_used_is_told(write: Write, source: str, said: str) -> None:
    name = write(source)
    message = problem(name)
    assert message.startswith(f"the callback {name} ")
    assert said in message


def test_the_line_where_a_file_breaks_is_told(write: Write) -> None:
    name = write("\n\nimport no_such_module\n")
    assert problem(name).endswith(f" at {name.removesuffix(':f')}:3")


@pytest.mark.parametrize(
    "name",
    ["/no/such/file.py:f", "no_such_module:f", "a\0b.py:f", "os.no_such:f", ".x:f", "json:no_such"],
)
def test_a_callback_that_is_not_there_is_a_problem(name: str) -> None:
    assert problem(name).startswith("the callback ")


def test_any_callable_with_two_arguments_will_do(write: Write) -> None:
    source = "class A:\n    def __call__(self, data, job, more=None): return data\nf = A()\n"
    assert load(write(source))(b"x", None) == b"x"
    assert load(write("from operator import concat as f\n")) is operator.concat
    assert load(write("def f(*args): return args[0]\n"))(b"x", None) == b"x"
