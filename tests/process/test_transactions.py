"""kill -9 in the middle of transactions: each is there wholly, in all of its tables, or not at all, and once."""

import os
import random
import threading
import time

import adbc_driver_flightsql.dbapi
import adbc_driver_manager
import pytest

import harness

KILLS = int(os.environ.get("TANDEM_TEST_TRANSACTION_KILLS", "6"))
WRITERS = 3
ROWS = 40


class Writer(threading.Thread):
    """Runs numbered transactions over three tables, each under its token, until it is told that it is committed."""

    def __init__(self, number, seed):
        super().__init__(daemon=True)
        self.random = random.Random(seed * 1000 + number)
        self.next = number * 1_000_000
        self.address = None
        self.stopped = threading.Event()
        self.begun, self.acked = set(), set()
        self.errors = []

    def run(self):
        number = None
        while not self.stopped.is_set():
            if self.address is None:
                time.sleep(0.005)
                continue
            try:
                with adbc_driver_flightsql.dbapi.connect(self.address) as connection:
                    while not self.stopped.is_set():
                        if number is None:
                            number, self.next = self.next, self.next + 1
                            self.begun.add(number)
                        self.transact(connection, number)
                        self.acked.add(number)
                        number = None
            except (adbc_driver_manager.Error, OSError) as error:
                # Only a dead node may break it off; the same is tried again then.
                self.errors.append(str(error))
                time.sleep(0.02)

    def transact(self, connection, number):
        while True:
            with connection.cursor() as cursor:
                cursor.execute(f"SET tandem.token = 'transaction {number}'")
                cursor.execute(f"INSERT INTO a SELECT {number}, value FROM generate_series(1, {ROWS})")
                cursor.execute(f"DELETE FROM a WHERE number = {number} AND row > {ROWS // 2}")
                cursor.execute(f"INSERT INTO b SELECT number, row FROM a WHERE number = {number}")
                cursor.execute(f"SELECT count(*) FROM b WHERE number = {number}")
                assert cursor.fetchall()[0][0] >= ROWS // 2
                cursor.execute(f"INSERT INTO k VALUES ({number}, 1)")
                cursor.execute(f"UPDATE k SET v = v + 1 WHERE number = {number}")
            if self.random.random() < 0.8:
                connection.commit()
                return
            connection.rollback()


@pytest.mark.seconds(240)
def test_killed_nodes_leave_no_part_of_a_transaction(tmp_path):
    seed = int(os.environ.get("TANDEM_TEST_SEED", str(random.randrange(1 << 30))))
    print(f"TANDEM_TEST_SEED={seed}")
    chance = random.Random(seed)
    node = harness.Node(tmp_path / "store", tmp_path / "run", ["--commit-inline-bytes", "16KB"])
    writers = [Writer(number, seed) for number in range(1, WRITERS + 1)]
    try:
        node.start()
        for table in ["a (number BIGINT, row BIGINT)", "b (number BIGINT, row BIGINT)"]:
            node.sql(f"CREATE TABLE {table}")
        node.sql("CREATE TABLE k (number BIGINT, v BIGINT, PRIMARY KEY (number))")
        for writer in writers:
            writer.start()
        for _ in range(KILLS):
            for writer in writers:
                writer.address = node.url
            before = sum(len(writer.acked) for writer in writers)
            harness.wait_until(
                lambda: sum(len(writer.acked) for writer in writers) >= before + 3, 60, "transactions are committed"
            )
            time.sleep(chance.random() * 0.5)
            node.kill()
            for writer in writers:
                writer.address = None
            node.start()
        for writer in writers:
            writer.address = node.url
        time.sleep(1)
        for writer in writers:
            writer.stopped.set()
        for writer in writers:
            writer.join(60)
            assert not writer.is_alive(), "a writer hangs"
        begun = set().union(*(writer.begun for writer in writers))
        acked = set().union(*(writer.acked for writer in writers))
        found = {}
        for table in "ab":
            rows = node.sql(f"SELECT number, count(*), count(DISTINCT row) FROM {table} GROUP BY number")
            found[table] = {number: (count, distinct) for number, count, distinct in rows}
        assert found["a"] == found["b"]
        assert set(found["a"].values()) <= {(ROWS // 2, ROWS // 2)}, "wholly, and once"
        keys = dict(node.sql("SELECT number, v FROM k"))
        assert set(keys) == set(found["a"]) and set(keys.values()) == {2}
        assert acked <= set(keys) <= begun
        assert len(acked) >= KILLS * 3
    except BaseException:
        for writer in writers:
            print(writer.name, writer.errors[-3:])
        raise
    finally:
        for writer in writers:
            writer.stopped.set()
        node.close()
