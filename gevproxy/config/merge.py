"""Several documents become one: every setting once, every queue and every server once.

Works on documents that may have schema problems: what is faulty is left out, so that everything
else can still be checked. Nothing here is filled in or judged beyond "said twice" and addresses.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field

from gevproxy.config.address import parse_address, parse_server
from gevproxy.config.model import QueueAddress
from gevproxy.config.schema import NOTES
from gevproxy.config.source import Document, Node
from gevproxy.errors import Problem
from gevproxy.gearman.job import Server

_GROUPS = ("defaults", "status", "metrics")
"""Objects whose members are settings of their own: two files may each give some of them."""


@dataclass(frozen=True, slots=True)
class Queue:
    """A forward as written. `target` is None where it is missing or wrong.

    `options` are those of the queue's own object, by name, without faulty ones.
    """

    source: QueueAddress
    target: QueueAddress | None
    node: Node
    options: dict[str, Node]


@dataclass(frozen=True, slots=True)
class ServerEntry:
    """A server as written; `tls` are the options of its `tls_node`, without faulty ones."""

    node: Node
    tls_node: Node
    tls: dict[str, Node]


@dataclass(slots=True)
class Merged:
    """All documents in one; `problems` are those of the merging.

    `settings` are the top level's and, as "defaults/window", those of its groups.
    `whole` is False when something is missing that may hold forwards or decide about their kind.
    `queues_named` counts those with wrong addresses too.
    """

    files: tuple[str, ...]
    whole: bool
    settings: dict[str, Node] = field(default_factory=dict)
    queues: dict[QueueAddress, Queue] = field(default_factory=dict)
    queues_named: int = 0
    servers: dict[Server, ServerEntry] = field(default_factory=dict)
    status_queue: QueueAddress | None = None
    problems: list[Problem] = field(default_factory=list)

    @property
    def defaults(self) -> dict[str, Node]:
        """The options under `defaults`, by name."""
        begin = "defaults/"
        return {
            name.removeprefix(begin): node
            for name, node in self.settings.items()
            if name.startswith(begin)
        }


def merge(documents: Sequence[Document], faults: Sequence[Problem], *, complete: bool) -> Merged:
    """Merge documents; `complete` says that none is missing that was meant to be here.

    `faults` are the problems found so far: values at or above such a place are left out.
    """
    return _Merger(documents, faults, complete=complete).merged


class _Merger:
    def __init__(
        self, documents: Sequence[Document], faults: Sequence[Problem], *, complete: bool
    ) -> None:
        self.faulty = _with_ancestors(faults)
        names = tuple(document.file for document in documents)
        self.merged = Merged(names, whole=complete and not any(map(_hides_more, faults)))
        for document in documents:
            self.document(document)

    def document(self, document: Document) -> None:
        """Take in one document."""
        for name, node in _members(document.root):
            if name == "queues":
                for address, queue in _members(node):
                    self.queue(address, queue)
            elif name == "servers":
                for address, server in _members(node):
                    self.server(address, server)
            elif name in _GROUPS:
                for option, member in _members(node):
                    self.setting(f"{name}/{option}", member)
            else:
                self.setting(name, node)

    def setting(self, name: str, node: Node) -> None:
        """Take in a setting, once."""
        if self.is_faulty(node):
            return
        first = self.merged.settings.setdefault(name, node)
        if first is not node:
            option = name.rpartition("/")[2]
            self.merged.problems.append(
                node.problem(f'"{option}" is set twice: it stands in {first} too')
            )
        elif name == "status_queue" and node.value is not None:
            self.merged.status_queue = self.address(node, node.value)

    def queue(self, text: str, node: Node) -> None:
        """Take in a queue, once, as far as it can be understood."""
        self.merged.queues_named += 1
        if isinstance(node.value, dict):
            options = {name: opt for name, opt in _members(node) if not self.is_faulty(opt)}
        else:
            options = {} if self.is_faulty(node) else {"remote_queue": node}
        remote = options.pop("remote_queue", None)
        source = self.address(node, text)
        target = self.address(remote, remote.value) if remote else None
        if source is None:
            return
        first = self.merged.queues.setdefault(source, Queue(source, target, node, options))
        if first.node is not node:
            self.merged.problems.append(
                node.problem(f"the queue {source} is named twice: it stands in {first.node} too")
            )

    def server(self, text: str, node: Node) -> None:
        """Take in a server, once, as far as it can be understood."""
        try:
            address = parse_server(text)
        except ValueError as error:
            self.merged.problems.append(node.problem(str(error)))
            return
        tls = dict(_members(node)).get("tls")
        if tls is None:
            return
        options = {name: opt for name, opt in _members(tls) if not self.is_faulty(opt)}
        entry = ServerEntry(node, tls, options)
        first = self.merged.servers.setdefault(address, entry)
        if first is not entry:
            self.merged.problems.append(
                node.problem(f"the server {address} is named twice: it stands in {first.node} too")
            )

    def address(self, node: Node, text: str) -> QueueAddress | None:
        """Parse an address; a wrong one is a problem and None."""
        try:
            return parse_address(text)
        except ValueError as error:
            self.merged.problems.append(node.problem(str(error)))
            return None

    def is_faulty(self, node: Node) -> bool:
        """Whether something is known to be wrong with the value or in it."""
        return (node.document.file, node.pointer) in self.faulty


def _hides_more(fault: Problem) -> bool:
    """Whether a fault leaves open which forwards there are or of what kind they are."""
    return fault.pointer in ("", "/queues") or fault.pointer.endswith("/async")


def _with_ancestors(faults: Iterable[Problem]) -> set[tuple[str, str]]:
    """Return file and pointer of every fault and of everything that it lies in."""
    result = set()
    for fault in faults:
        pointer = fault.pointer
        result.add((fault.file, pointer))
        while pointer:
            pointer = pointer.rpartition("/")[0]
            result.add((fault.file, pointer))
    return result


def _members(node: Node) -> Iterator[tuple[str, Node]]:
    """Yield an object's members without notes; nothing when it is no object after all."""
    if isinstance(node.value, dict):
        yield from ((str(name), member) for name, member in node if name not in NOTES)
