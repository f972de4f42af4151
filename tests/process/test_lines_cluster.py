"""Line protocol on several nodes: answers that are lost, requests that come again elsewhere, tables made at once."""

import concurrent.futures
import contextlib
import http.client
import http.server
import json
import threading
import time

import pytest

import harness

AGENT = {"user-agent": "cluster/1"}


@pytest.fixture
def pair(tmp_path):
    with harness.Node(tmp_path / "store", tmp_path / "a") as a, harness.Node(tmp_path / "store", tmp_path / "b") as b:
        yield a, b


def request(address, path, body, headers=AGENT):
    """(status, body, headers) of one request."""
    with contextlib.closing(http.client.HTTPConnection(address, timeout=60)) as connection:
        connection.request("POST", path, body.encode() if isinstance(body, str) else body, dict(headers))
        answer = connection.getresponse()
        return answer.status, answer.read().decode(), answer.headers


def post(node, path, body, **headers):
    return request(node.ready["http"], path, body, {**AGENT, **headers})


def latest(node, query):
    """A query on everything that any node has committed."""
    with node.adbc(**{"adbc.flight.sql.rpc.call_header.tandem-read": "latest"}) as connection, connection.cursor() as cursor:
        cursor.execute(query)
        return cursor.fetchall()


class Lossy(http.server.ThreadingHTTPServer):
    """Passes requests on, each to the next node in turn; the answers to those that `loses` says are lost, as by a gateway
    that says so, or with the connection."""

    daemon_threads = True

    def __init__(self, nodes, loses, says=False):
        self.nodes, self.loses, self.says, self.posts = nodes, loses, says, 0
        super().__init__(("127.0.0.1", 0), Relay)

    def __enter__(self):
        threading.Thread(target=self.serve_forever, daemon=True).start()
        return self

    def __exit__(self, *_):
        self.shutdown()
        self.server_close()

    @property
    def address(self):
        return f"127.0.0.1:{self.server_port}"


class Relay(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def relay(self):
        proxy = self.server
        body = self.rfile.read(int(self.headers.get("content-length", 0)))
        number = proxy.posts
        if self.command == "POST":
            proxy.posts += 1
        node = proxy.nodes[number % len(proxy.nodes)]
        with contextlib.closing(http.client.HTTPConnection(node.ready["http"], timeout=60)) as connection:
            connection.request(self.command, self.path, body, dict(self.headers))
            answer = connection.getresponse()
            text = answer.read()
        if self.command == "POST" and proxy.loses(number):
            # It was committed, and nobody is told.
            if proxy.says:
                self.send_error(504)
                return
            self.close_connection = True
            self.connection.close()
            return
        self.send_response(answer.status)
        for name, value in answer.headers.items():
            if name.lower() not in ("transfer-encoding", "content-length", "connection"):
                self.send_header(name, value)
        self.send_header("content-length", str(len(text)))
        self.end_headers()
        self.wfile.write(text)

    do_GET = do_POST = relay

    def log_message(self, *_):
        pass


def test_an_answer_that_is_lost_doubles_nothing(pair):
    """Each request is sent until it is answered, each time to the other node, and most first answers are lost."""
    a, b = pair
    with Lossy((a, b), lambda number: number % 3 != 2) as proxy:
        for i in range(30):
            body = f"lost,n=n{i % 3} v={i}i {i + 1}\nlost{i % 4} v={i}i {i + 1}\n"
            for _ in range(6):
                with contextlib.suppress(http.client.HTTPException, OSError):
                    status, text, _ = request(proxy.address, "/api/v2/write?bucket=b", body)
                    assert status == 204, text
                    break
            else:
                raise AssertionError("never answered")
        assert proxy.posts > 60
    tables = " UNION ALL ".join(f"SELECT v FROM lost{i}" for i in range(4))
    for node in pair:
        assert latest(node, "SELECT count(*), sum(v) FROM lost") == [(30, 435)]
        assert latest(node, f"SELECT count(*), sum(v) FROM ({tables})") == [(30, 435)]


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_questdb_s_client_sends_again_and_doubles_nothing(pair):
    questdb = pytest.importorskip("questdb.ingress", exc_type=ImportError)
    # It does not go on when a connection breaks, only when a gateway says that it did.
    with Lossy(pair, lambda number: number % 2 == 0, says=True) as proxy:
        with questdb.Sender.from_conf(f"http::addr={proxy.address};retry_timeout=20000;") as sender:
            for batch in range(5):
                for i in range(100):
                    n = batch * 100 + i
                    sender.row("sent", symbols={"s": f"s{n % 7}"}, columns={"n": n}, at=questdb.TimestampNanos(n + 1))
                sender.flush()
        assert proxy.posts == 10, "each batch twice"
    assert latest(pair[1], "SELECT count(*), sum(n) FROM sent") == [(500, 499 * 250)]


def test_what_a_node_was_asked_before_it_died_is_sent_to_another(tmp_path):
    """Killed at any moment, with requests on their way: sent again to the other node, each is there once."""
    with harness.Node(tmp_path / "store", tmp_path / "a") as a, harness.Node(tmp_path / "store", tmp_path / "b") as b:
        for life in range(4):
            bodies = [f"killed,life=l{life} v={i}i {life * 1000 + i + 1}\n" f"killed{life} v={i}i {i + 1}\n" for i in range(40)]

            def send(body):
                with contextlib.suppress(http.client.HTTPException, OSError):
                    return post(a, "/write", body)[0] == 204
                return False

            with concurrent.futures.ThreadPoolExecutor(8) as pool:
                sent = [pool.submit(send, body) for body in bodies]
                time.sleep(0.01 + 0.03 * life)
                a.kill()
                acked = [future.result() for future in sent]
            again = [post(b, "/write", body) for body in bodies]
            assert {status for status, *_ in again} == {204}
            # What was acknowledged before is told to be there.
            assert all(headers["tandem-duplicate"] == "true" for done, (_, _, headers) in zip(acked, again) if done)
            expected = [(40, 780)]
            assert b.sql(f"SELECT count(*), sum(v) FROM killed{life}") == expected
            assert b.sql(f"SELECT count(*), sum(v) FROM killed WHERE life = 'l{life}'") == expected
            a.start()


def test_clients_are_told_apart_and_events_are_not_lost(pair):
    a, b = pair
    body = "apart v=1i 1\n"
    for node, client in [(a, "one"), (b, "one"), (b, "two"), (a, "two"), (a, "three")]:
        assert post(node, "/write", body, **{"user-agent": client})[0] == 204
    assert latest(a, "SELECT count(*) FROM apart") == [(3,)]
    for node in (a, b):
        assert post(node, "/write", "apart v=2i\n")[0] == 204
        assert post(node, "/write?dedup_window=off", "every v=1i 1\n")[0] == 204
    assert latest(a, "SELECT count(*) FROM apart WHERE v = 2") == [(2,)]
    assert latest(a, "SELECT count(*) FROM every") == [(2,)]


def test_nodes_make_one_table_with_different_keys(pair):
    """Whoever comes first decides on the key; a line that it would make one with another is refused, and none is lost so."""

    def write(i):
        table, tags = f"series{i // 4}", ("a=x", "a=x,b=y", "b=y", "a=x,c=z")[i % 4]
        for _ in range(20):
            status, text, _ = post(pair[i % 2], "/write?keys=tags", f"{table},{tags} n={i}i 5\n")
            if status != 503:
                return table, status, text
        raise AssertionError(text)

    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(write, range(80)))
    for table in {table for table, *_ in answers}:
        mine = [(status, text) for name, status, text in answers if name == table]
        assert {status for status, _ in mine} <= {204, 400}
        assert all("primary key" in json.loads(text)["message"] for status, text in mine if status == 400)
        taken = [status for status, _ in mine].count(204)
        assert taken >= 1 and latest(pair[0], f"SELECT count(*) FROM {table}") == [(taken,)], "no two series became one row"


def test_what_is_kept_aside_is_kept_once_and_everywhere(pair):
    """The table for it is made by whoever needs it first, on both nodes at once."""
    assert post(pair[0], "/write?on_type_conflict=divert", "aside v=1i 1\n")[0] == 204
    assert latest(pair[1], "SELECT count(*) FROM aside") == [(1,)]

    def write(i):
        body = f'aside v="text {i}" {i + 1}\naside v={i}i {i + 1}\n'
        return [post(pair[(i + again) % 2], "/write", body)[0] for again in range(2)]

    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        assert {tuple(statuses) for statuses in pool.map(write, range(40))} == {(204, 204)}
    for node in pair:
        assert latest(node, "SELECT count(*), count(DISTINCT line) FROM system.rejected") == [(40, 40)]
        assert latest(node, "SELECT count(*) FROM aside") == [(41,)]
        assert latest(node, "SELECT DISTINCT client FROM system.rejected") == [("cluster/1",)]
    rejected = "SELECT count(*) FROM system.tables WHERE schema_name = 'system'"
    assert latest(pair[0], rejected) == [(1,)]


def test_no_line_is_refused_for_what_a_table_was(pair):
    """One node makes the table anew with another type; the other one, which may not know yet, refuses no line for good."""
    a, b = pair
    for i in range(15):
        kind, value = [("VARCHAR", '"text"'), ("BIGINT", "1i")][i % 2]
        a.sql("DROP TABLE IF EXISTS anew")
        a.sql(f"CREATE TABLE anew (timestamp TIMESTAMP, v {kind})")
        for _ in range(50):
            status, text, headers = post(b, "/write", f"anew v={value} {i + 1}\n")
            if status != 503:
                break
            assert headers["retry-after"]
        assert status == 204, text
        assert latest(b, "SELECT count(*) FROM anew") == [(1,)]
