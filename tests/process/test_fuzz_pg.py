"""PostgreSQL's port under messages that are wrong in every way: the node stays up, and what was written before is there.

    TANDEM_FUZZ_SECONDS=900 TANDEM_FUZZ_SEED=N     for longer, or the same choices again
"""

import os
import random
import shutil
import socket
import struct
import subprocess
import time

import pytest

import harness

SECONDS = float(os.environ.get("TANDEM_FUZZ_SECONDS", "6"))
STATEMENTS = [
    b"SELECT 1", b"SELECT 1; SELECT 2", b"SELECT * FROM t WHERE a = $1", b"INSERT INTO scratch VALUES ($1)", b"COPY scratch FROM STDIN",
    b"COPY t TO STDOUT", b"BEGIN", b"COMMIT", b"ROLLBACK", b"SAVEPOINT x", b"SELECT * FROM pg_catalog.pg_class", b"SHOW server_version",
    b"SET x = 1", b"SELECT value FROM generate_series(1, 100000)", b"DECLARE c CURSOR FOR SELECT 1", b";;", b"", b"\xff\xfe",
]  # fmt: skip


def framed(kind, body):
    return kind + struct.pack("!i", len(body) + 4) + body


STARTUP = framed(b"", struct.pack("!i", 196608) + b"user\0me\0database\0tandem\0\0")


def message(chance):
    name, portal = chance.choice([b"", b"s1", b"s2"]) + b"\0", chance.choice([b"", b"p1"]) + b"\0"
    value = chance.choice([b"1", b"x" * 8, b"\0" * 8, b"", b"{1,2}"])
    length = chance.choice([len(value), -1, -2, 2**31 - 1])
    kinds = [
        lambda: framed(b"Q", chance.choice(STATEMENTS) + b"\0"),
        lambda: framed(b"P", name + chance.choice(STATEMENTS) + b"\0" + struct.pack("!hi", 1, chance.choice([0, 20, 25, 1700, 1114, 99999]))),
        lambda: framed(b"B", portal + name + struct.pack("!hhhi", 1, chance.choice([0, 1, 7]), 1, length) + value + struct.pack("!hh", 1, 1)),
        lambda: framed(b"E", portal + struct.pack("!i", chance.choice([0, 1, -1]))),
        lambda: framed(b"D", chance.choice([b"S", b"P", b"X"]) + name),
        lambda: framed(b"C", chance.choice([b"S", b"P"]) + name),
        lambda: framed(b"d", chance.choice([b"1\n", b"\\N\n", b"abc", b"\\.\n", b"1,2\n"])),
        lambda: framed(chance.choice([b"S", b"H", b"c", b"f"]), b""),
        lambda: chance.randbytes(chance.randrange(20)),
    ]
    return chance.choice(kinds)()


def spoilt(chance, data):
    """The bytes with some changed, taken out, put in, or cut off."""
    data = bytearray(data)
    for _ in range(chance.choice([0, 1, 1, 3])):
        at = chance.randrange(len(data) + 1)
        match chance.randrange(4):
            case 0:
                data[at : at + 1] = chance.randbytes(1)
            case 1:
                del data[at : at + chance.randrange(1, 5)]
            case 2:
                data[at:at] = chance.randbytes(chance.randrange(1, 5))
            case 3:
                del data[at:]
    return bytes(data)


def talk(chance, port):
    with socket.create_connection(("127.0.0.1", port), 10) as connection:
        connection.settimeout(0.1)
        try:
            connection.sendall(spoilt(chance, STARTUP) if chance.random() < 0.1 else STARTUP)
            parts = (message(chance) for _ in range(chance.randrange(1, 25)))
            connection.sendall(b"".join(spoilt(chance, part) if chance.random() < 0.5 else part for part in parts))
            if chance.random() < 0.5:
                connection.shutdown(socket.SHUT_WR)
            while connection.recv(1 << 16):
                pass
        except OSError:
            pass


@pytest.mark.seconds(int(SECONDS) + 90)
def test_wrong_messages_harm_nobody_else(tmp_path):
    seed = int(os.environ.get("TANDEM_FUZZ_SEED", random.randrange(1 << 30)))
    chance = random.Random(seed)
    with harness.Node(tmp_path / "store", tmp_path / "node") as node:
        node.sql("CREATE TABLE t (a BIGINT)")
        node.sql("INSERT INTO t SELECT value FROM generate_series(1, 1000)")
        node.sql("CREATE TABLE scratch (a BIGINT)")
        port = int(node.ready["pg"].rsplit(":", 1)[1])
        count, until = 0, time.monotonic() + SECONDS
        while time.monotonic() < until:
            talk(chance, port)
            count += 1
        print(f"{count} connections, TANDEM_FUZZ_SEED={seed}")
        assert count > SECONDS
        assert node.is_up() and "panicked" not in node.log_end(1 << 20), f"seed {seed}\n{node.log_end()}"
        assert node.sql("SELECT count(*), sum(a) FROM t") == [(1000, 500500)]
        if psql := shutil.which("psql"):
            command = [psql, "-At", f"host=127.0.0.1 port={port} dbname=tandem", "-c", "SELECT count(*) FROM t"]
            assert subprocess.run(command, capture_output=True, text=True, timeout=30, check=True).stdout == "1000\n"
