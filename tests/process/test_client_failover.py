"""The program's own client, when a node it talks to is killed: it goes on at the next address, and nothing is lost or doubled."""

import contextlib
import json
import subprocess
import time

import pytest

import harness

ROWS = 300_000


@pytest.fixture
def pair(tmp_path):
    with harness.Node(tmp_path / "store", tmp_path / "a") as a, harness.Node(tmp_path / "store", tmp_path / "b") as b:
        yield a, b


@contextlib.contextmanager
def running(*arguments):
    """A command of the program, while it runs; ended with the block whatever happens."""
    process = subprocess.Popen(
        [harness.binary(), *map(str, arguments)],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=harness.clean_environment(),
    )
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


def ended(process, seconds=120):
    """Standard output and error of a command that must succeed."""
    out, err = process.communicate(timeout=seconds)
    assert process.returncode == 0, err[-3000:]
    return out, err


def both(pair):
    return ",".join(node.url for node in pair)


def numbers_file(path, rows=ROWS):
    path.write_text("n,text\n" + "".join(f"{n},value {n % 100}\n" for n in range(rows)))
    return path


def count(node, table):
    return node.sql(f"SELECT count(*) FROM {table}")[0][0]


def wait_for_rows(node, table, rows=1):
    harness.wait_until(lambda: count(node, table) >= rows, 60, f"{table} has {rows} rows", every=0.01)


def exactly(node, table, rows):
    harness.wait_until(lambda: count(node, table) >= rows, 30, f"{table} has {rows} rows")
    assert node.sql(f"SELECT count(*), count(DISTINCT n), min(n), max(n) FROM {table}") == [(rows, rows, 0, rows - 1)]


def test_an_import_outlives_the_node_it_talks_to(pair, tmp_path):
    a, b = pair
    path = numbers_file(tmp_path / "numbers.csv")
    b.sql("CREATE TABLE numbers (n BIGINT, text VARCHAR)")
    with running("import", path, "--table", "numbers", "--connect", both(pair), "--chunk-rows", "2000") as importing:
        wait_for_rows(b, "numbers", 5000)
        assert importing.poll() is None, "the import was over before the node was killed"
        a.kill()
        out, err = ended(importing)
    assert f"left {a.url}" in err and f"going on at {b.url}" in err, err
    assert f"{ROWS} rows into numbers" in out and "already" not in out, out
    exactly(b, "numbers", ROWS)


def test_a_script_outlives_the_node_it_talks_to_with_its_settings(pair, tmp_path):
    a, b = pair
    statements = 400
    b.sql("CREATE SCHEMA other")
    b.sql("CREATE TABLE other.numbers (n BIGINT)")
    a.restart()
    script = tmp_path / "script.sql"
    inserts = "".join(f"INSERT INTO numbers VALUES ({n});\n" for n in range(statements))
    # Without the setting, there is no table of this name.
    script.write_text(f"SET schema = 'other';\n{inserts}SELECT count(*) AS rows FROM numbers;\n\\c\n")
    with running("sql", "--connect", both(pair), "--format", "csv", "-f", script) as shell:
        wait_for_rows(b, "other.numbers", 20)
        assert shell.poll() is None, "the script was over before the node was killed"
        a.kill()
        out, err = ended(shell)
    assert f"going on at {b.url}" in err and f"connected to {b.url}" in err, err[-3000:]
    # What the script wrote at one node it reads at the other.
    assert out.split() == ["rows", str(statements)], out
    exactly(b, "other.numbers", statements)


def test_an_import_that_was_killed_goes_on_when_it_is_run_again(own_node, tmp_path):
    node = own_node
    path = numbers_file(tmp_path / "numbers.csv")
    node.sql("CREATE TABLE numbers (n BIGINT, text VARCHAR)")
    arguments = ("import", path, "--table", "numbers", "--connect", node.url, "--chunk-rows", "2000", "--json")
    with running(*arguments) as importing:
        wait_for_rows(node, "numbers", 20_000)
        assert importing.poll() is None, "the import was over before it was killed"
        importing.kill()
        importing.communicate()
    # A chunk that was on its way is whole or absent; let it arrive.
    time.sleep(1)
    there = count(node, "numbers")
    assert there % 2000 == 0 and 0 < there < ROWS
    outcome = json.loads(harness.run(*arguments).stdout)
    assert (outcome["already_there"], outcome["rows"]) == (there, ROWS - there)
    exactly(node, "numbers", ROWS)


def test_the_same_file_is_loaded_again_only_when_that_is_said(own_node, tmp_path):
    node = own_node
    path = numbers_file(tmp_path / "numbers.csv", 1000)
    arguments = ("import", path, "--table", "numbers", "--json")
    first = json.loads(node.tandem(*arguments, "--create").stdout)
    assert (first["rows"], first["already_there"]) == (1000, 0)
    second = json.loads(node.tandem(*arguments).stdout)
    assert (second["rows"], second["already_there"]) == (0, 1000)
    assert "--again" in node.tandem("import", path, "--table", "numbers").stdout
    refused = node.tandem(*arguments, "--chunk-rows", "100", expect=1).stderr
    assert "--again" in refused and "--chunk-rows" in refused
    exactly(node, "numbers", 1000)
    assert json.loads(node.tandem(*arguments, "--again").stdout)["rows"] == 1000
    assert count(node, "numbers") == 2000
    # Another table of the same name is another table.
    node.sql("DROP TABLE numbers")
    assert json.loads(node.tandem(*arguments, "--create").stdout)["rows"] == 1000
    # The same content given twice is meant twice.
    twin = tmp_path / "twin.csv"
    twin.write_bytes(path.read_bytes())
    twice = json.loads(node.tandem("import", path, twin, "--table", "numbers", "--json").stdout)
    assert (twice["rows"], twice["already_there"]) == (1000, 1000)


def test_without_a_server_the_first_connection_fails_at_once_and_a_lost_one_in_time(own_node):
    nowhere = f"grpc://127.0.0.1:{harness.free_port()}"
    begun = time.monotonic()
    assert nowhere in harness.run("sql", "--connect", nowhere, "-c", "SELECT 1", expect=1).stderr
    assert time.monotonic() - begun < 10
    own_node.sql("CREATE TABLE t (n BIGINT)")
    slow = "SELECT count(*) FROM generate_series(1, 1000000000000)"
    with running("sql", "--connect", own_node.url, "--retry-for", "2s", "-c", slow) as shell:
        time.sleep(1)
        assert shell.poll() is None, shell.communicate()
        own_node.kill()
        begun = time.monotonic()
        _, err = shell.communicate(timeout=60)
    assert shell.returncode == 1 and "given up after" in err, err
    assert 1 < time.monotonic() - begun < 20
