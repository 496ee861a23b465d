"""The certificates of these tests, made once, and whether there is a stunnel."""

import shutil

import pytest

from tests.kit.certificates import EXPIRED, Authority
from tests.kit.means import lack
from tests.tls.ends import Papers


@pytest.fixture(scope="session")
def papers(tmp_path_factory: pytest.TempPathFactory) -> Papers:
    """Give two authorities and what they have signed."""
    folder = tmp_path_factory.mktemp("papers")
    ours, foreign = Authority(folder, "ours"), Authority(folder, "foreign")
    return Papers(
        ours=ours,
        foreign=foreign,
        server=ours.issue("server"),
        client=ours.issue("client"),
        expired=ours.issue("expired", between=EXPIRED),
        named=ours.issue("named", "DNS:gearman-b.example.com"),
        stranger=foreign.issue("stranger"),
    )


@pytest.fixture(scope="session", autouse=True)
def has_stunnel() -> None:
    """Skip without stunnel, or fail where tests may not be skipped."""
    if shutil.which("stunnel4") is None:
        lack("stunnel is not installed (Debian: stunnel4)")
