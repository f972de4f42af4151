"""Clients of line protocol whose node is killed while they write: they go on at another, and nothing is lost or doubled.

The table has a PRIMARY KEY, so that what is sent again is the same row.
"""

import contextlib
import os
import signal
import subprocess
import threading

import harness
import programs
import pytest

ROWS = 2000


@pytest.fixture
def pair(tmp_path):
    with harness.Node(tmp_path / "store", tmp_path / "a") as a, harness.Node(tmp_path / "store", tmp_path / "b") as b:
        b.sql("CREATE TABLE streamed (timestamp TIMESTAMP(9), n BIGINT, PRIMARY KEY (timestamp, n))")
        yield a, b


def exactly(node, rows):
    assert node.sql("SELECT count(*), count(DISTINCT n), min(n), max(n) FROM streamed") == [(rows, rows, 0, rows - 1)]


@contextlib.contextmanager
def running(command, cwd=None):
    process = subprocess.Popen(
        list(map(str, command)), cwd=cwd, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        start_new_session=True,
    )  # fmt: skip
    try:
        yield process
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.communicate()


def stream(command, a, b, cwd=None):
    """Runs a program that says "acknowledged N" now and then; kills `a` when a quarter is written."""
    last = 0
    with running(command, cwd) as process:
        for line in process.stdout:
            if line.startswith("acknowledged "):
                last = int(line.split()[1])
            if last >= ROWS // 4 and a.is_up():
                assert last < ROWS, "it was over before the node was killed"
                a.kill()
        code = process.wait(60)
        assert code == 0, process.stderr.read()[-3000:]
    assert last == ROWS
    exactly(b, ROWS)


def test_questdb_java_with_two_addresses(pair, java_lines):
    a, b = pair
    addresses = f"addr={a.ready['http']};addr={b.ready['http']}"
    stream([*java_lines, "stream", f"http::{addresses};auto_flush=off;", ROWS], a, b)


def test_questdb_java_leaves_a_replica(own_node, tmp_path, java_lines):
    """By itself, where the first address is a node that takes no writes."""
    own_node.sql("CREATE TABLE streamed (timestamp TIMESTAMP(9), n BIGINT, PRIMARY KEY (timestamp, n))")
    options = ["--role", "replica", "--follow", own_node.url]
    with harness.Node(own_node.store, tmp_path / "replica", options) as replica:
        addresses = f"addr={replica.ready['http']};addr={own_node.ready['http']}"
        programs.output([*java_lines, "stream", f"http::{addresses};auto_flush=off;", 50])
        exactly(own_node, 50)


def test_questdb_node_with_two_senders(pair, tmp_path):
    a, b = pair
    home = programs.home("Node")
    (tmp_path / "node_modules").symlink_to(home / "node_modules")
    (tmp_path / "lines.mjs").write_text((programs.HERE / "node" / "lines.mjs").read_text())
    stream(["node", "lines.mjs", "stream", f"{a.ready['http']},{b.ready['http']}", ROWS], a, b, cwd=tmp_path)


def test_questdb_go_with_two_senders(pair, go_cases):
    a, b = pair
    stream([go_cases, "stream", f"{a.ready['http']},{b.ready['http']}", ROWS], a, b)


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore:.*burst of reconnections")
def test_questdb_python_by_the_page_s_snippet(pair):
    pytest.importorskip("questdb.ingress", exc_type=ImportError)
    a, b = pair
    names = {}
    exec(compile(programs.snippets("python")["failover_python"], "failover_python", "exec"), names)
    names["NODES"][:] = [a.ready["http"], b.ready["http"]]
    killer = threading.Thread(target=a.kill)
    for i in range(0, ROWS, 50):
        if i == ROWS // 4:
            killer.start()
        names["send"]([(n, 1_700_000_000_000_000_000 + n) for n in range(i, i + 50)])
    killer.join()
    exactly(b, ROWS)
    assert names["NODES"][0] == b.ready["http"]


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_who_takes_one_address_only():
    """As the page says. One that learns to take several fails this."""
    questdb = pytest.importorskip("questdb.ingress", exc_type=ImportError)
    for addresses in ("addr=127.0.0.1:1;addr=127.0.0.1:2", "addr=127.0.0.1:1,127.0.0.1:2"):
        with pytest.raises(questdb.IngressError, match="duplicate key|invalid authority"):
            with questdb.Sender.from_conf(f"http::{addresses};"):
                pass
