"""Reading the past with stock clients: ADBC by SQL, session and header, plain Flight by tickets."""

import json

import adbc_driver_manager
import pyarrow as pa
import pyarrow.flight as fl
import pytest

import harness

HEADER = "adbc.flight.sql.rpc.call_header.tandem-as-of"


@pytest.fixture(scope="module")
def moments(node):
    """A table that grew row by row: (seq, commit time, rows)."""
    node.sql("CREATE TABLE past (n BIGINT)")
    found = []
    for n in range(1, 6):
        node.sql(f"INSERT INTO past VALUES ({n})")
        [(seq, time)] = node.sql("SELECT seq, commit_time FROM system.log ORDER BY seq DESC LIMIT 1")
        found.append((seq, f"{time.isoformat()}Z", n))
    return found


def fetch(cursor, query, parameters=None):
    cursor.execute(query, parameters)
    return cursor.fetchall()


def read(client, headers=(), **fields):
    return client.do_get(harness.ticket(**fields), harness.call_options(headers)).read_all()


def test_adbc_by_sql(cursor, moments):
    for seq, time, rows in moments:
        for moment in (f"VERSION AS OF {seq}", f"FOR SYSTEM_TIME AS OF SEQ {seq}", f"FOR SYSTEM_TIME AS OF TIMESTAMP '{time}'"):
            assert fetch(cursor, f"SELECT count(*), max(n) FROM past {moment}") == [(rows, rows)], moment
    (early, _, _), (_, late, _) = moments[1], moments[3]
    new = f"SELECT b.n FROM past FOR SYSTEM_TIME AS OF '{late}' b LEFT JOIN past VERSION AS OF {early} a ON a.n = b.n WHERE a.n IS NULL ORDER BY 1"
    assert fetch(cursor, new) == [(3,), (4,)]
    assert fetch(cursor, f"SELECT n FROM past VERSION AS OF {early} WHERE n > ?", (1,)) == [(2,)]


def test_adbc_by_session(node, moments):
    with node.adbc() as connection, connection.cursor() as cursor:
        for seq, time, rows in moments:
            for moment in (f"seq:{seq}", time):
                cursor.execute(f"SET tandem.as_of = '{moment}'")
                assert fetch(cursor, "SELECT count(*) FROM past") == [(rows,)]
                assert fetch(cursor, "SELECT rows FROM system.tables WHERE table_name = 'past'") == [(rows,)]
                assert fetch(cursor, "SELECT n FROM past WHERE n >= ? ORDER BY n", (rows,)) == [(rows,)], "prepared"
        with pytest.raises(adbc_driver_manager.ProgrammingError, match="reads the past"):
            cursor.execute("INSERT INTO past VALUES (9)")
        with pytest.raises(adbc_driver_manager.Error, match="reads the past"):
            cursor.adbc_ingest("past", pa.table({"n": [9]}), mode="append")
        cursor.execute("SET tandem.as_of = 'seq:1'")
        tables = connection.adbc_get_objects(depth="tables").read_all().to_pylist()
        names = [t["table_name"] for c in tables for s in c["catalog_db_schemas"] for t in s["db_schema_tables"]]
        assert "past" in names and "tables" in names
        cursor.execute("SET tandem.as_of = ''")
        assert fetch(cursor, "SELECT count(*) FROM past") == [(5,)]


def test_adbc_by_header(node, moments):
    seq, _, rows = moments[2]
    with node.adbc(**{HEADER: f"seq:{seq}"}) as connection, connection.cursor() as cursor:
        assert fetch(cursor, "SELECT count(*) FROM past") == [(rows,)]
        with pytest.raises(adbc_driver_manager.ProgrammingError, match="reads the past"):
            cursor.execute("INSERT INTO past VALUES (9)")
    with node.adbc(**{HEADER: "yesterday"}) as connection, connection.cursor() as cursor:
        with pytest.raises(adbc_driver_manager.ProgrammingError, match="no moment of the past"):
            cursor.execute("SELECT 1")


def test_tickets(node, moments):
    with node.flight() as client:
        for seq, time, rows in moments:
            for as_of in ({"seq": seq}, {"time": time}):
                assert read(client, table="past", as_of=as_of).num_rows == rows
                assert read(client, sql="SELECT count(*) AS n FROM past", as_of=as_of)["n"].to_pylist() == [rows]
            assert read(client, {"tandem-as-of": f"seq:{seq}"}, table="past").num_rows == rows
        first, last = moments[0], moments[-1]
        both = read(client, {"tandem-as-of": f"seq:{last[0]}"}, table="past", as_of={"seq": first[0]})
        assert both.num_rows == first[2], "the ticket comes first"
        for wrong in ({"seq": 1, "time": last[1]}, {}, {"seq": -1}, 7):
            with pytest.raises((pa.ArrowInvalid, fl.FlightServerError)):
                read(client, table="past", as_of=wrong)
        with pytest.raises(pa.ArrowInvalid, match="reads the past"):
            batch = pa.record_batch({"n": pa.array([9])})
            harness.put(client, "past", [batch], headers={"tandem-as-of": f"seq:{first[0]}"})


def test_a_flight_info_names_the_state_that_it_reads(node, moments):
    seq, _, rows = moments[1]
    with node.flight() as client:
        descriptor = fl.FlightDescriptor.for_path("past")
        info = client.get_flight_info(descriptor, harness.call_options({"tandem-as-of": f"seq:{seq}"}))
        assert json.loads(info.app_metadata) == {"snapshot_seq": seq}
        assert info.total_records == rows
        # The ticket stays what it is, whatever its reader says.
        assert client.do_get(info.endpoints[0].ticket, harness.call_options()).read_all().num_rows == rows


def test_what_is_not_there_yet_is_waited_for(node, moments):
    last = moments[-1][0]
    with node.flight() as client:
        with pytest.raises(fl.FlightTimedOutError, match="has applied seq"):
            client.do_get(harness.ticket(table="past", as_of={"seq": last + 1_000_000}), harness.call_options(seconds=2)).read_all()
        with pytest.raises(fl.FlightTimedOutError, match="no commit has passed"):
            client.do_get(harness.ticket(table="past", as_of={"time": "2999-01-01"}), harness.call_options(seconds=2)).read_all()
