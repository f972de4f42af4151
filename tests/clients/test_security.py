"""Tokens and TLS, with the clients that people have: ADBC, plain Flight, HTTP and the tandem command."""

import base64
import shutil
import ssl
import subprocess
import urllib.error
import urllib.request
from http.client import HTTPException

import adbc_driver_flightsql.dbapi
import adbc_driver_manager
import pyarrow as pa
import pyarrow.flight as fl
import pytest

import harness
from harness import call_options, put, ticket

READER = "reader-token-0123456789"
WRITER = "writer-token-0123456789"
WRONG = "wrong-token-0123456789"
ROWS = pa.record_batch({"id": pa.array([1, 2], pa.int64())})


def bearer(token):
    return {"authorization": f"Bearer {token}"}


def basic(token):
    return {"authorization": "Basic " + base64.b64encode(f"anybody:{token}".encode()).decode()}


@pytest.fixture(scope="module")
def tokens(tmp_path_factory):
    """A token file."""
    path = tmp_path_factory.mktemp("access") / "tokens"
    path.write_text(f"# who may what\n\nread {READER} dashboards\nwrite {WRITER} loader\n")
    path.chmod(0o600)
    return path


@pytest.fixture(scope="module")
def certificates(tmp_path_factory):
    """A directory with ca.pem, and node.pem and node.key for 127.0.0.1 and localhost."""
    if not shutil.which("openssl"):
        pytest.skip("certificates are made by the openssl command, which is not here")
    home = tmp_path_factory.mktemp("certificates")
    (home / "names").write_text("subjectAltName=IP:127.0.0.1,DNS:localhost\nextendedKeyUsage=serverAuth\n")
    for command in (
        "req -x509 -newkey rsa:2048 -nodes -days 2 -subj /CN=test-ca -keyout ca.key -out ca.pem",
        "req -newkey rsa:2048 -nodes -subj /CN=node -keyout node.key -out node.csr",
        "x509 -req -in node.csr -CA ca.pem -CAkey ca.key -CAcreateserial -days 2 -extfile names -out node.pem",
        "req -x509 -newkey rsa:2048 -nodes -days 2 -subj /CN=other-ca -keyout other.key -out other.pem",
    ):
        done = subprocess.run(["openssl", *command.split()], cwd=home, capture_output=True, text=True, timeout=60)
        assert done.returncode == 0, done.stderr
    return home


@pytest.fixture(scope="module")
def guarded(tmp_path_factory, tokens):
    """A node that wants tokens."""
    home = tmp_path_factory.mktemp("guarded")
    with harness.Node(home / "store", home / "run", ["--auth-token-file", tokens]) as node:
        harness.run("sql", "--connect", node.url, "--auth-token", WRITER, "-c", "CREATE TABLE points (id BIGINT)")
        yield node
        assert node.is_up(), node.log_end()
        assert not any(token in node.log.read_text() for token in (READER, WRITER, WRONG)), "a token is in the log"


@pytest.fixture(scope="module")
def tls_node(tmp_path_factory, tokens, certificates):
    """A node that wants tokens and speaks TLS."""
    home = tmp_path_factory.mktemp("tls")
    options = ["--auth-token-file", tokens, "--tls-cert", certificates / "node.pem", "--tls-key", certificates / "node.key"]
    with harness.Node(home / "store", home / "run", options) as node:
        yield node
        assert node.is_up(), node.log_end()


def adbc(url, **options):
    return adbc_driver_flightsql.dbapi.connect(url, autocommit=True, db_kwargs=options)


def fetch(connection, query):
    with connection.cursor() as cursor:
        cursor.execute(query)
        return cursor.fetchall()


def execute(connection, statement):
    with connection.cursor() as cursor:
        cursor.execute(statement)


def http(node, path, headers=None, method="GET", scheme="http", context=None):
    """(status, text, headers) of a request."""
    request = urllib.request.Request(f"{scheme}://{node.ready['http']}{path}", headers=headers or {}, method=method)
    try:
        with urllib.request.urlopen(request, timeout=10, context=context) as answer:
            return answer.status, answer.read().decode(), answer.headers
    except urllib.error.HTTPError as error:
        return error.code, error.read().decode(), error.headers


def test_adbc_logs_in_by_password_or_by_header(guarded):
    ways = [
        {"username": "anybody", "password": READER},
        {"adbc.flight.sql.authorization_header": f"Bearer {READER}"},
    ]
    for way in ways:
        with adbc(guarded.url, **way) as connection:
            assert fetch(connection, "SELECT 1 + 1") == [(2,)]
            with connection.cursor() as cursor:
                cursor.execute("SELECT CAST(? AS BIGINT) * 2", (21,))
                assert cursor.fetchall() == [(42,)], "binding parameters is reading"
            for statement in ("INSERT INTO points VALUES (1)", "DROP TABLE points", "ALTER TABLE points ADD COLUMN x BIGINT"):
                with pytest.raises(adbc_driver_manager.Error, match="may only read") as refused:
                    execute(connection, statement)
                assert refused.value.status_code == adbc_driver_manager.AdbcStatusCode.UNAUTHORIZED
            with pytest.raises(adbc_driver_manager.Error, match="may only read"), connection.cursor() as cursor:
                cursor.adbc_ingest("points", pa.table({"id": pa.array([1], pa.int64())}), mode="append")
    for way in ways[0] | {"password": WRITER}, {"adbc.flight.sql.authorization_header": f"Bearer {WRITER}"}:
        with adbc(guarded.url, **way) as connection:
            execute(connection, "INSERT INTO points VALUES (7)")
            with connection.cursor() as cursor:
                assert cursor.adbc_ingest("points", pa.table({"id": pa.array([8], pa.int64())}), mode="append") == 1
            assert (7,) in fetch(connection, "SELECT id FROM points")


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"username": "anybody", "password": WRONG},
        {"username": WRITER, "password": ""},
        {"adbc.flight.sql.authorization_header": f"Bearer {WRONG}"},
        {"adbc.flight.sql.authorization_header": WRITER},
    ],
    ids=["nothing", "wrong password", "token as user", "wrong bearer", "no scheme"],
)
def test_adbc_without_a_token_is_told_what_to_do(guarded, options):
    with pytest.raises(adbc_driver_manager.Error) as refused, adbc(guarded.url, **options) as connection:
        fetch(connection, "SELECT 1")
    assert refused.value.status_code == adbc_driver_manager.AdbcStatusCode.UNAUTHENTICATED
    assert "Bearer" in str(refused.value)


def test_plain_flight(guarded):
    with guarded.flight() as client:
        for headers in ({}, bearer(WRONG), basic(WRONG), bearer("None")):
            options = call_options(headers)
            for refused in (
                lambda: client.do_get(ticket(sql="SELECT 1"), options).read_all(),
                lambda: list(client.list_flights(options=options)),
                lambda: list(client.list_actions(options)),
                lambda: list(client.do_action(fl.Action("tandem.Status", b""), options)),
            ):
                with pytest.raises(fl.FlightUnauthenticatedError):
                    refused()
            with pytest.raises(fl.FlightUnauthenticatedError):
                put(client, "points", [ROWS], headers)
        for headers in (bearer(READER), basic(READER), dict([client.authenticate_basic_token("anybody", READER)])):
            headers = {k if isinstance(k, str) else k.decode(): v if isinstance(v, str) else v.decode() for k, v in headers.items()}
            assert client.do_get(ticket(sql="SELECT 1 AS n"), call_options(headers)).read_all().to_pylist() == [{"n": 1}]
            with pytest.raises(fl.FlightUnauthorizedError, match="may only read"):
                put(client, "points", [ROWS], headers)
            with pytest.raises(fl.FlightUnauthorizedError, match="tandem.Compact"):
                list(client.do_action(fl.Action("tandem.Compact", b'{"table":"points"}'), call_options(headers)))
        assert put(client, "points", [ROWS], bearer(WRITER))[0]["rows"] == 2
        with pytest.raises(fl.FlightUnauthenticatedError):
            client.authenticate_basic_token("anybody", WRONG)


def test_http(guarded):
    assert http(guarded, "/healthz")[0] == 200
    for path in ("/readyz", "/metrics", "/", "/unknown", "/healthz/x", "/%68ealthz"):
        for headers in ({}, bearer(WRONG), basic(WRONG)):
            status, text, answer = http(guarded, path, headers)
            assert (status, "Bearer" in answer["www-authenticate"], "Bearer" in text) == (401, True, True), path
    for headers in (bearer(READER), basic(READER), bearer(WRITER)):
        assert http(guarded, "/readyz", headers)[0] == 200
        assert http(guarded, "/metrics", headers)[0] == 200
        assert http(guarded, "/unknown", headers)[0] == 404
    assert http(guarded, "/metrics", bearer(READER), "POST")[0] == 403
    refused = [line for line in http(guarded, "/metrics", bearer(READER))[1].splitlines() if "tandem_auth_refused_total{" in line]
    assert any('via="http"' in line for line in refused), refused


def test_the_command(guarded):
    count = ["--connect", guarded.url, "-c", "SELECT count(*) FROM points"]
    refused = harness.run("sql", *count, expect=1)
    assert "--auth-token" in refused.stderr and "Traceback" not in refused.stderr
    harness.run("sql", "--auth-token", READER, *count)
    harness.run("sql", *count, env={"TANDEM_AUTH_TOKEN": READER})
    refused = harness.run("compact", "points", "--connect", guarded.url, "--auth-token", READER, expect=1)
    assert "may only read" in refused.stderr
    harness.run("compact", "points", "--connect", guarded.url, "--auth-token", WRITER)
    assert READER not in harness.run("sql", "--help", env={"TANDEM_AUTH_TOKEN": READER}).stdout


def test_tls_with_every_client(tls_node, certificates):
    url = f"grpc+tls://{tls_node.ready['flight']}"
    ca, other = ((certificates / name).read_text() for name in ("ca.pem", "other.pem"))
    roots = "adbc.flight.sql.client_option.tls_root_certs"
    with adbc(url, username="anybody", password=WRITER, **{roots: ca}) as connection:
        execute(connection, "CREATE TABLE t (id BIGINT)")
        execute(connection, "INSERT INTO t VALUES (1)")
        assert fetch(connection, "SELECT * FROM t") == [(1,)]
    with pytest.raises(adbc_driver_manager.Error, match="certificate"), adbc(url, username="a", password=WRITER, **{roots: other}) as bad:
        fetch(bad, "SELECT 1")

    with fl.FlightClient(url, tls_root_certs=ca) as client:
        assert client.do_get(ticket(sql="SELECT 1 AS n"), call_options(bearer(READER))).read_all().num_rows == 1
        with pytest.raises(fl.FlightUnauthenticatedError):
            list(client.list_actions(call_options()))
        big = pa.record_batch({"id": pa.array(range(200_000), pa.int64())})
        assert put(client, "t", [big, big], bearer(WRITER))[1]["rows"] == 200_000
        assert client.do_get(ticket(table="t"), call_options(bearer(READER))).read_all().num_rows == 400_001

    trusting = ssl.create_default_context(cafile=certificates / "ca.pem")
    assert http(tls_node, "/healthz", scheme="https", context=trusting)[0] == 200
    assert http(tls_node, "/metrics", bearer(READER), scheme="https", context=trusting)[0] == 200
    with pytest.raises(urllib.error.URLError, match="CERTIFICATE_VERIFY_FAILED"):
        http(tls_node, "/healthz", scheme="https", context=ssl.create_default_context(cafile=certificates / "other.pem"))
    with pytest.raises((OSError, HTTPException)):
        http(tls_node, "/healthz")

    query = ["--connect", url, "--auth-token", READER, "-c", "SELECT count(*) FROM t"]
    assert "400001" in harness.run("sql", "--tls-ca", certificates / "ca.pem", *query).stdout
    harness.run("sql", *query, env={"TANDEM_TLS_CA": str(certificates / "ca.pem")})
    refused = harness.run("sql", "--tls-ca", certificates / "other.pem", *query, expect=1, seconds=60)
    assert "certificate" in refused.stderr


def test_nodes_show_each_other_a_token_over_tls(tls_node, certificates, tmp_path, tokens):
    """quorum(1) is answered only after another node has said, over its own connection, that it has applied."""
    upstream = f"grpc+tls://{tls_node.ready['flight']}"
    options = [
        "--auth-token-file", tokens, "--tls-cert", certificates / "node.pem", "--tls-key", certificates / "node.key",
        "--follow", upstream, "--tls-ca",
    ]  # fmt: skip
    roots = {"adbc.flight.sql.client_option.tls_root_certs": (certificates / "ca.pem").read_text()}
    writer = {"username": "anybody", "password": WRITER, **roots}
    reader = {"username": "anybody", "password": READER, **roots}
    with adbc(upstream, **writer) as connection:
        execute(connection, "CREATE TABLE followed (id BIGINT)")
        execute(connection, "SET tandem.ack = 'quorum(1)'")
        execute(connection, "SET tandem.ack_timeout = '2s'")
        with harness.Node(tls_node.store, tmp_path / "stranger", [*options, certificates / "other.pem"]):
            with pytest.raises(adbc_driver_manager.Error, match="0 of 1"):
                execute(connection, "INSERT INTO followed VALUES (1)")
        execute(connection, "SET tandem.ack_timeout = '30s'")
        with harness.Node(tls_node.store, tmp_path / "follower", [*options, certificates / "ca.pem"]) as follower:
            execute(connection, "INSERT INTO followed VALUES (2)")
            with adbc(f"grpc+tls://{follower.ready['flight']}", **reader) as other:
                assert fetch(other, "SELECT id FROM followed ORDER BY id") == [(1,), (2,)]


def test_what_protects_nothing_is_refused(tmp_path, tokens):
    def refused(*options, **listen):
        addresses = {"--flight": "127.0.0.1:0", "--http": "off", **listen}
        words = [word for pair in addresses.items() for word in pair]
        done = harness.run("serve", "--store", tmp_path / "store", *words, *options, expect=1)
        assert not (tmp_path / "store").exists(), "nothing was touched"
        return done.stderr

    for flag in ("--flight", "--http"):
        said = refused(**{flag: "0.0.0.0:0"})
        assert flag in said and "--auth-token-file" in said and "--insecure" in said
    (tmp_path / "short").write_text("# x\nwrite short\n")
    said = refused("--auth-token-file", tmp_path / "short")
    assert "line 2" in said and "16" in said
    assert "tls-key" in refused("--tls-cert", tmp_path / "short")
    assert "none-there" in refused("--auth-token-file", tmp_path / "none-there")
    for options in (["--insecure"], ["--auth-token-file", tokens]):
        with harness.Node(tmp_path / "open", options=options, listen="0.0.0.0") as node:
            assert node.ready["flight"].startswith("0.0.0.0:")


def test_others_may_read_the_token_file(tmp_path):
    path = tmp_path / "tokens"
    path.write_text(f"write {WRITER}\n")
    path.chmod(0o644)
    with harness.Node(tmp_path / "store", options=["--auth-token-file", path]) as node:
        log = node.log.read_text()
        assert "chmod 600" in log and WRITER not in log


def test_reader_actions_are_all_of_those_listed(guarded):
    """Every action there is, is either open to readers or refused to them: none is forgotten."""
    with guarded.flight() as client:
        names = {a.type for a in client.list_actions(call_options(bearer(READER)))}
        for name in names:
            try:
                list(client.do_action(fl.Action(name, b"{}"), call_options(bearer(READER))))
                refused = False
            except fl.FlightUnauthorizedError:
                refused = True
            except (pa.ArrowException, fl.FlightError):
                refused = False
            assert refused == (name.startswith("tandem.") and name != "tandem.Status"), name
        assert {"tandem.Compact", "tandem.Checkpoint", "tandem.Status"} <= names
