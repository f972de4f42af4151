"""`tandem serve`: flags, files and variables, starting, stopping, and stores that it must not touch."""

import contextlib
import json
import pathlib
import shutil
import signal
import socket
import threading
import time

import pyarrow as pa
import pyarrow.flight
import pytest

import harness
from harness import run


def test_the_ready_file_and_the_two_listeners(own_node):
    assert set(own_node.ready) == {"node_id", "flight", "http", "pg", "seq"}
    assert own_node.ready["flight"].startswith("127.0.0.1:")
    assert own_node.get("/readyz")[0] == 200
    assert own_node.sql("SELECT 1") == [(1,)]


@pytest.mark.parametrize("flag", ["--flight", "--http"])
def test_a_taken_port_is_named_with_its_flag(own_node, tmp_path, flag):
    taken = own_node.ready[flag.strip("-")]
    others = {"--flight": "127.0.0.1:0", "--http": "127.0.0.1:0", flag: taken}
    arguments = [part for pair in others.items() for part in pair]
    done = run("serve", "--store", tmp_path / "other", *arguments, expect=1)
    assert flag in done.stderr and taken in done.stderr
    assert not (tmp_path / "other" / "tandem.json").exists()


def test_wrong_usage_is_exit_code_2():
    for arguments in (["serve", "--nonsense"], ["nonsense"], ["import"], ["sql", "--format", "nonsense", "-c", "SELECT 1"]):
        assert "nonsense" in run(*arguments, expect=2).stderr or arguments == ["import"]


def test_bad_values_name_their_flag(tmp_path):
    store = ("--store", tmp_path / "s", "--flight", "127.0.0.1:0", "--http", "off")
    for flag, value in (("--memory-limit", "much"), ("--commit-window", "5"), ("--store-option", "nothing"), ("--flight", "nowhere")):
        done = run("serve", *(x for x in store if flag != "--flight"), flag, value, expect=None)
        assert done.returncode in (1, 2) and flag in done.stderr


def test_a_flag_outranks_a_variable_outranks_the_file(tmp_path):
    port = harness.free_port()
    config = tmp_path / "tandem.toml"
    config.write_text(f'node-id = "from-file"\nstore = "{tmp_path}/from-file"\nflight = "127.0.0.1:{port}"\nhttp = "off"\npg = "off"\n')
    ready = tmp_path / "ready.json"

    def serve(*arguments, env=None):
        ready.unlink(missing_ok=True)
        import subprocess

        process = subprocess.Popen(
            [harness.binary(), "serve", "--config", config, "--ready-file", ready, *arguments],
            env=harness.clean_environment(env), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, cwd=tmp_path,
        )  # fmt: skip
        try:
            harness.wait_until(lambda: ready.exists() or process.poll() is not None, 30, "the node is ready or gone")
            assert ready.exists(), f"exit code {process.returncode}"
            answer = json.loads(ready.read_text())
            process.send_signal(signal.SIGTERM)
            assert process.wait(30) == 0
            return answer
        finally:
            process.kill()
            process.wait(10)

    assert serve() | {"seq": 0} == {"node_id": "from-file", "flight": f"127.0.0.1:{port}", "http": None, "pg": None, "seq": 0}
    assert (tmp_path / "from-file" / "tandem.json").exists()
    env = {"TANDEM_NODE_ID": "from-variable", "TANDEM_STORE": str(tmp_path / "from-variable"), "TANDEM_HTTP": "127.0.0.1:0"}
    answer = serve(env=env)
    assert answer["node_id"] == "from-variable" and answer["http"]
    assert (tmp_path / "from-variable" / "tandem.json").exists()
    assert serve("--node-id", "from-flag", env=env)["node_id"] == "from-flag"
    config.write_text('fligth = "x"\n')
    assert "fligth" in run("serve", "--config", config, expect=1).stderr


def test_memory_stores_forget(tmp_path):
    with harness.Node("memory://", tmp_path / "run") as node:
        node.sql("CREATE TABLE t AS SELECT 1 AS n")
        node.sql("OPTIMIZE TABLE t")
        assert node.sql("SELECT n FROM t") == [(1,)]
        node.restart()
        assert node.sql("SELECT count(*) FROM system.tables WHERE table_name = 't'") == [(0,)]


def test_sigterm_drains(own_node):
    """What was acknowledged is there after SIGTERM during writing, what was not is whole or absent; exit code 0."""
    own_node.sql("CREATE TABLE drained (n BIGINT)")
    schema = pa.schema([("n", pa.int64())])
    acked, sent, started = [], [], threading.Event()

    def work(which):
        try:
            with own_node.flight() as client:
                for n in range(which, 1_000_000, 4):
                    sent.append(n)
                    acked.extend([n] for _ in harness.put(client, "drained", [pa.record_batch([[n] * 10], schema)]))
                    started.set()
        except Exception:  # noqa: BLE001 - it is being stopped
            return

    threads = [threading.Thread(target=work, args=(which,)) for which in range(4)]
    for thread in threads:
        thread.start()
    assert started.wait(30)
    time.sleep(0.5)
    began = time.monotonic()
    assert own_node.stop() == 0, own_node.log_end()
    assert time.monotonic() - began < 15
    for thread in threads:
        thread.join(30)
        assert not thread.is_alive()
    own_node.start()
    found = dict(own_node.sql("SELECT n, count(*) FROM drained GROUP BY n"))
    assert set(found.values()) == {10}
    assert {n for [n] in acked} <= set(found) <= set(sent)


def test_sigterm_does_not_wait_for_an_idle_client(own_node):
    with own_node.flight() as client:
        assert client.do_get(harness.ticket(sql="SELECT 1")).read_all().num_rows == 1
        began = time.monotonic()
        assert own_node.stop() == 0
        assert time.monotonic() - began < 15


def test_sigterm_does_not_wait_for_half_a_request(own_node):
    host, port = own_node.ready["http"].split(":")
    with socket.create_connection((host, int(port))) as half:
        half.sendall(b"GET /metrics HTTP/1.1\r\nHost: x\r\n")
        time.sleep(0.3)
        began = time.monotonic()
        assert own_node.stop() == 0
        assert time.monotonic() - began < 15
    assert "HTTP requests are still running" in own_node.log.read_text()


def test_a_second_signal_stops_at_once(own_node):
    own_node.sql("CREATE TABLE t (n BIGINT)")
    schema = pa.schema([("n", pa.int64())])
    with own_node.flight() as client:
        # A request that goes on for as long as requests may.
        writer, _ = client.do_put(pa.flight.FlightDescriptor.for_path("t"), schema)
        own_node.process.send_signal(signal.SIGTERM)
        harness.wait_until(lambda: "again to stop at once" in own_node.log.read_text(), 10, "the node stops")
        time.sleep(0.2)
        assert own_node.is_up()
        began = time.monotonic()
        own_node.process.send_signal(signal.SIGINT)
        assert own_node.wait_ended() == 0
        assert time.monotonic() - began < 5
        with contextlib.suppress(pa.ArrowException):
            writer.close()


@pytest.fixture
def filled(own_node):
    """A stopped node's store, with a log, a data file and a checkpoint."""
    own_node.sql("CREATE TABLE t AS SELECT value AS n FROM generate_series(1, 100)")
    own_node.sql("OPTIMIZE TABLE t")
    own_node.sql("CHECKPOINT")
    own_node.sql("INSERT INTO t VALUES (101)")
    assert own_node.stop() == 0
    return pathlib.Path(own_node.store)


def refused(store, code=4):
    return run("sql", "--store", store, "-c", "SELECT sum(n) FROM t", expect=code)


def test_a_whole_store_is_read(filled):
    done = run("sql", "--store", filled, "--format", "csv", "-c", "SELECT count(*) AS n, sum(n) AS s FROM t")
    assert done.stdout.split() == ["n,s", "101,5151"]


def test_a_foreign_directory_is_refused(tmp_path):
    (tmp_path / "tandem.json").write_text("this is somebody else's file")
    assert "tandem.json" in refused(tmp_path).stderr


def test_a_newer_format_is_refused_with_its_version(filled):
    identity = filled / "tandem.json"
    content = json.loads(identity.read_text())
    assert isinstance(content["version"], int)
    identity.write_text(json.dumps(content | {"version": 99}))
    assert "version 99" in refused(filled).stderr


def test_damage_in_the_log_is_found_by_name(filled):
    commits = sorted((filled / "log").glob("*.commit"))
    last = commits[-1]
    content = bytearray(last.read_bytes())
    content[len(content) // 2] ^= 0x40
    last.write_bytes(content)
    assert last.name in refused(filled).stderr


def test_a_commit_of_another_database_is_found(filled, tmp_path):
    other = tmp_path / "other"
    run("sql", "--store", other, *[x for n in range(9) for x in ("-c", f"CREATE TABLE t{n} (n BIGINT)")])
    last = sorted((filled / "log").glob("*.commit"))[-1]
    source = other / "log" / last.name
    assert source.exists()
    shutil.copy(source, last)
    assert last.name in refused(filled).stderr


def test_damage_in_a_data_file_never_yields_wrong_rows(filled):
    [path] = filled.glob("data/**/*.parquet")
    whole = path.read_bytes()
    for position in range(8, len(whole), max(1, len(whole) // 12)):
        content = bytearray(whole)
        content[position] ^= 0xFF
        path.write_bytes(content)
        done = run("sql", "--store", filled, "--format", "csv", "-c", "SELECT sum(n) AS s FROM t", expect=None)
        # Bytes that this query does not need may go unread.
        assert done.returncode == 4 and path.name in done.stderr or done.stdout.split() == ["s", "5151"], (position, done)
    path.unlink()
    assert path.name in refused(filled).stderr


def test_rows_that_are_cut_off_in_the_log_are_found(filled):
    last = sorted((filled / "log").glob("*.commit"))[-1]
    last.write_bytes(last.read_bytes()[:-200])
    assert last.name in refused(filled).stderr


def test_a_damaged_store_does_not_start_a_node(filled):
    last = sorted((filled / "log").glob("*.commit"))[-1]
    content = bytearray(last.read_bytes())
    content[30] ^= 0x40
    last.write_bytes(content)
    done = run("serve", "--store", filled, "--flight", "127.0.0.1:0", "--http", "off", expect=4, seconds=30)
    assert last.name in done.stderr


def test_settings_live_in_the_log(own_node):
    own_node.sql("ALTER DATABASE SET (checkpoint_commits = 7)")
    own_node.restart()
    assert own_node.sql("SELECT value FROM system.settings WHERE name = 'checkpoint_commits'") == [("7",)]
    with pytest.raises(Exception, match="nonsense"):
        own_node.sql("ALTER DATABASE SET (nonsense = 7)")


def test_checkpoints_are_written_by_themselves(own_node):
    own_node.sql("ALTER DATABASE SET (checkpoint_commits = 10)")
    own_node.sql("CREATE TABLE t (n BIGINT)")
    for n in range(25):
        own_node.sql(f"INSERT INTO t VALUES ({n})")
    harness.wait_until(
        lambda: json.loads(own_node.tandem("status", "--json").stdout)["checkpoint_seq"], 20, "a checkpoint is recorded", every=0.3
    )
    own_node.restart()
    assert own_node.sql("SELECT count(*) FROM t") == [(25,)]
