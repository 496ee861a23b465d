"""What the scenarios stand on: persistent gearmands on this machine, or networks between them."""

from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from typing import Any

import pytest

from tests.chaos.site import Plan, Site
from tests.kit.means import lack
from tests.kit.network import Namespace, Wire, missing
from tests.kit.servers import PersistentGearmand


class Network:
    """A relay host and two gearmands, each in a network of its own, joined by two wires."""

    def __init__(self, stack: ExitStack, *options: str) -> None:
        self.relay, near, far = (stack.enter_context(Namespace()) for _ in range(3))
        self.wires = [
            stack.enter_context(Wire(self.relay, end, number))
            for number, end in enumerate((near, far))
        ]
        self.near, self.far = (
            stack.enter_context(
                PersistentGearmand(*options, namespace=wire.far, host=wire.far_host)
            )
            for wire in self.wires
        )

    def site(self, plans: Sequence[Plan], **options: Any) -> Site:  # noqa: ANN401 - passed on
        """Return a site on this network."""
        servers = (self.near, self.far)
        return Site(servers, servers, plans, prefix=self.relay.prefix, **options)


@pytest.fixture
def near(has_gearmand: None) -> Iterator[PersistentGearmand]:  # noqa: ARG001 - asked for its check
    """Give the persistent gearmand on the near side."""
    with PersistentGearmand() as server:
        yield server


@pytest.fixture
def far(has_gearmand: None) -> Iterator[PersistentGearmand]:  # noqa: ARG001 - asked for its check
    """Give the persistent gearmand on the far side."""
    with PersistentGearmand() as server:
        yield server


@pytest.fixture(scope="session")
def has_namespaces() -> None:
    """Skip without the means for a network, or fail where tests may not be skipped."""
    if reason := missing():
        lack(reason)


@pytest.fixture
def network(
    request: pytest.FixtureRequest,
    has_gearmand: None,  # noqa: ARG001 - asked for its check
    has_namespaces: None,  # noqa: ARG001 - the same
) -> Iterator[Network]:
    """Give a network with two persistent gearmands; its parameter is further options of theirs."""
    with ExitStack() as stack:
        yield Network(stack, *getattr(request, "param", ()))
