"""Fixtures all suites share, and a time limit for every test."""

import faulthandler
import pathlib
import signal
import sys

import pytest

sys.path.insert(0, str(pathlib.Path(__file__).parent))

import harness  # noqa: E402

TEST_SECONDS = 180


def pytest_configure(config):
    config.addinivalue_line("markers", "seconds(n): time limit of one test, instead of the usual one")


@pytest.fixture(autouse=True)
def _time_limit(request):
    """Fails a test that takes too long; ends the whole run when it does not even react to that."""
    mark = request.node.get_closest_marker("seconds")
    seconds = mark.args[0] if mark else TEST_SECONDS

    def too_long(*_):
        raise TimeoutError(f"the test takes longer than {seconds} s")

    before = signal.signal(signal.SIGALRM, too_long)
    signal.alarm(seconds)
    # A call that is stuck inside a driver never comes back to Python.
    faulthandler.dump_traceback_later(seconds + 60, exit=True)
    yield
    faulthandler.cancel_dump_traceback_later()
    signal.alarm(0)
    signal.signal(signal.SIGALRM, before)


@pytest.fixture(scope="module")
def node(tmp_path_factory):
    """A node that the tests of a module share."""
    directory = tmp_path_factory.mktemp("node")
    with harness.Node(directory / "store", directory / "run") as running:
        yield running
        assert running.is_up(), f"the node died during the tests\n{running.log_end()}"


@pytest.fixture
def own_node(tmp_path):
    """A node of one test alone."""
    with harness.Node(tmp_path / "store", tmp_path / "run") as running:
        yield running


@pytest.fixture
def cursor(node):
    """An ADBC cursor on the shared node."""
    with node.adbc() as connection, connection.cursor() as opened:
        yield opened
