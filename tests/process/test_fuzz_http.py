"""Requests that no client would send, on all HTTP routes, by raw sockets, against a real node.

Whatever comes: the node stays up, answers well-formed HTTP or closes, never answers 500, never panics, keeps its memory,
and a write of somebody else meanwhile is there exactly once. 10 seconds by default; TANDEM_FUZZ_SECONDS=1800 for more;
a failure prints what was sent and the seed (TANDEM_FUZZ_SEED).
"""

import base64
import contextlib
import gzip
import http.client
import itertools
import os
import random
import re
import socket
import struct
import threading
import time
import zlib

import pytest

SECONDS = float(os.environ.get("TANDEM_FUZZ_SECONDS", "10"))
SEED = int(os.environ.get("TANDEM_FUZZ_SEED") or random.SystemRandom().randrange(1 << 32))
THREADS = 4
# A route that has all it waits for answers in a fraction of this, on a busy machine too.
ANSWER_SECONDS = 60
# Without optimisation the program alone takes a tenth of it.
MEMORY_BYTES = 2 << 30

WRITES = ["/write", "/api/v2/write", "/api/v3/write_lp"]
OTHERS = ["/settings", "/ping", "/health", "/healthz", "/readyz", "/metrics"]
PARAMETERS = [
    "precision=ns", "precision=n", "precision=us", "precision=u", "precision=ms", "precision=s", "precision=m", "precision=h",
    "precision=auto", "precision=nanosecond", "precision=second", "precision=", "precision=%00", "precision=d", "precision", "precision=ns&precision=s",
    "db=d", "db=", "bucket=b&org=o", "accept_partial=true", "accept_partial=false", "accept_partial=maybe", "no_sync=true",
    "keys=tags", "keys=nonsense", "partition_by=HOUR", "partition_by=EON", "ttl=30d", "ttl=-1", "dedup_window=off", "u=a&p=b",
    "on_type_conflict=divert", "%zz=%", "&&&===", "rp=%ff%fe", "consistency=all", "\u00fc=1",
]  # fmt: skip
HEADERS = [
    "Connection: keep-alive", "Connection: close", "Connection: upgrade\r\nUpgrade: h2c", "Expect: 100-continue", "Expect: nonsense",
    "Authorization: Token x", "Authorization: Basic !!!", "Authorization: Bearer ", "Authorization: \x80\xff", "User-Agent: \xff",
    "Content-Type: text/plain; charset=utf-8", "Content-Type: \x01", "tandem-token: fuzz-1", "tandem-token: ", "tandem-token: " + "x" * 200,
    "tandem-ack: store", "tandem-ack: quorum(1)\r\ntandem-ack-timeout: 10ms", "tandem-ack: quorum(-1)", "tandem-ack-timeout: 1e9s",
    "tandem-schema: strict", "tandem-schema: add", "tandem-schema: \xff", "tandem-nonsense: 1", "Range: bytes=0-", "Host: other",
    "Accept-Encoding: gzip", "Cookie: " + "c" * 3000, "X-Long: " + "l" * 70_000, " folded: 1", "no colon", ": empty", "Trailer: x",
]  # fmt: skip
# Fields, each with what it mostly has: tables whose columns are settled take most lines.
FIELDS = {
    b"i": lambda r: b"%di" % r.randrange(-(1 << 63), 1 << 63),
    b"small": lambda r: b"%di" % r.randrange(100),
    b"u": lambda r: b"%du" % r.randrange(1 << 64),
    b"f": lambda r: repr(r.gauss(0, 1e6)).encode(),
    b"n\\ m": lambda r: r.choice([b"t", b"F", b"true", b"False"]),
    b"s": lambda r: b'"' + r.choice([b"a", b"two words", b'q \\" q', b"line\nend", b"\\\\", b",= "]) + b'"',
    b"double": lambda r: b"=\x10" + r.randbytes(8),
    b"array": lambda r: b"=\x0e\x0a\x01" + struct.pack("<I", 2) + r.randbytes(16),
    b"dec": lambda r: r.choice([b"1.5d", b"=\x17\x02\x03" + r.randbytes(3)]),
    b"at": lambda r: b"%dt" % r.randrange(1 << 50),
    b"odd": lambda r: r.choice([b"NaN", b"1e400", b"oops", b"", b"=\x0e\x0a" + r.randbytes(9), b"=\x42", b"5n"]),
}
TAGS = ["host", "region", "c\\,d", "\u00fc", "n\\ m"]
TABLES = ["fuzz_a", "fuzz_b", "fuzz_c", "fuzz\\ d"]
TEXTS = ["a", "host_1", "x\\ y", "p\\,q", "C:\\dir", "\u00fc", '"', ""]
SPECIAL = b"\n\r\t ,=\\\"#tifnu0123456789.-+e\x00\x01\x0a\x0e\x10\x17\x7f\x80\xff"


class Sender:
    """One source of requests: all that it does is decided by its seed, but for what the network does to it."""

    def __init__(self, address, seed):
        self.address, self.r = address, random.Random(seed)

    # lines

    def line(self):
        r = self.r
        tags = "".join(f",{name}={r.choice(TEXTS)}" for name in r.sample(TAGS[: 5 if r.randrange(20) == 0 else 4], r.randrange(4)))
        names = r.sample(list(FIELDS)[: None if r.randrange(30) == 0 else -1], r.randrange(1, 5))
        kinds = names if r.randrange(40) else r.sample(list(FIELDS), len(names))
        fields = b",".join(name + b"=" + FIELDS[kind](r) for name, kind in zip(names, kinds))
        stamp = f" {1_700_000_000_000_000_000 + r.randrange(10**9)}"
        if r.randrange(10) == 0:
            stamp = r.choice(["", f" {r.randrange(1 << 63)}", " 17t", " -5", " 1 1"])
        return f"{r.choice(TABLES)}{tags} ".encode() + fields + stamp.encode() + (b"\n" if r.randrange(10) else r.choice([b"\r\n", b"", b"\n\n"]))

    def lines(self):
        r = self.r
        kind = r.randrange(12)
        if kind == 0:
            return r.randbytes(r.randrange(300))
        if kind == 1:
            return b""
        if kind == 2:
            return self.line() * r.randrange(1, 3000)
        body = b"".join(self.line() for _ in range(r.randrange(1, 20)))
        return self.spoilt(body) if kind < 6 else body

    def spoilt(self, data):
        r, data = self.r, bytearray(data)
        for _ in range(r.randrange(1, 6)):
            at = r.randrange(len(data) + 1)
            kind = r.randrange(5)
            if kind == 0:
                del data[at:]
            elif kind == 1:
                data[at:at] = bytes([r.choice(SPECIAL)])
            elif kind == 2:
                data[at:at] = data[at : at + r.randrange(60)]
            elif kind == 3:
                del data[at : at + r.randrange(12)]
            elif at < len(data):
                data[at] = r.randrange(256)
        return bytes(data)

    # HTTP

    def packed(self, body):
        """A gzip body, mostly a good one."""
        r = self.r
        half = len(body) // 2
        return r.choice(
            [
                lambda: gzip.compress(body),
                lambda: gzip.compress(body[:half]) + gzip.compress(body[half:]),
                lambda: gzip.compress(body)[: -r.randrange(1, 9)],
                lambda: gzip.compress(body)[: r.randrange(12)],
                lambda: gzip.compress(body) + r.randbytes(20),
                lambda: gzip.compress(body) + bytes(20),
                lambda: self.spoilt(gzip.compress(body)),
                lambda: zlib.compress(body),
                lambda: body,
                lambda: gzip.compress(gzip.compress(body)),
                self.bomb,
            ]
        )()

    def bomb(self):
        """Little that becomes much: of one line, of many, of none."""
        r = self.r
        piece = r.choice([b"\n", b"a", b'fuzz_a x="', b"#", b"fuzz_a x=1i 1\n", bytes(1), b"\\\n", b"\xff\n"])
        size = r.choice([1 << 20, 4 << 20]) if r.randrange(20) else 48 << 20
        if piece.endswith(b" 1\n"):
            size = 1 << 20
        return gzip.compress(piece * (size // len(piece)))

    def chunked(self, body):
        r, out = self.r, b""
        while body:
            size = r.choice([1, 7, 100, 5000, len(body)])
            piece, body = body[:size], body[size:]
            out += b"%x%s\r\n%s\r\n" % (len(piece), r.choice([b"", b"", b"", b";name=value", b' ; a="b"']), piece)
        end = [b"0\r\n\r\n"] * 6 + [
            b"", b"0\r\nTrailer: x\r\n\r\n", b"0\r\n", b"0\r\n\r", b"-1\r\n\r\n", b"ffffffffffffffff\r\nabc", b"fffffffffffffffff\r\n",
            b"zz\r\n\r\n", b"5\r\nabc\r\n0\r\n\r\n", b"1\r\nabc\r\n0\r\n\r\n", b"5;" + b"e" * 20_000 + b"\r\nabcde\r\n0\r\n\r\n",
            b"0\r\n" + b"T: x\r\n" * 300 + b"\r\n",
        ]  # fmt: skip
        return out + r.choice(end)

    def target(self):
        r = self.r
        path = r.choice(WRITES) if r.randrange(4) else r.choice(OTHERS)
        odd = [path + "/", "/" + path, path.upper(), path.replace("/", "%2f"), "http://h" + path, "*", "/", path + "\\", path + "#x", "/nothing", path + "/../healthz"]
        if r.randrange(15) == 0:
            path = r.choice(odd)
        query = "&".join(r.choice(PARAMETERS) for _ in range(r.choice([0, 0, 0, 0, 1, 2, 4])))
        if r.randrange(60) == 0:
            query += "&" + r.choice(["q=" + "q" * 60_000, "&".join(f"k{n}=v" for n in range(3000)), "%41" * 20_000])
        return path + ("?" + query if query else "")

    def request(self):
        r = self.r
        target = self.target()
        write = any(route in target for route in WRITES)
        method = "POST" if write and r.randrange(8) else "GET" if not write and r.randrange(3) else r.choice(
            ["GET", "HEAD", "PUT", "DELETE", "OPTIONS", "PATCH", "TRACE", "CONNECT", "post", "POST", "X" * 40, "P\x00ST"]
        )  # fmt: skip
        headers = [] if r.randrange(30) == 0 else ["Host: fuzz"]
        headers += [r.choice(HEADERS) for _ in range(r.choice([0, 0, 0, 0, 1, 1, 4]))]
        if r.randrange(100) == 0:
            headers += [f"h{n}: v" for n in range(r.choice([90, 101, 400]))]
        body = self.lines() if write or r.randrange(4) == 0 else b""
        if r.randrange(4) == 0:
            body = self.packed(body)
            headers.append("Content-Encoding: " + r.choice(["gzip", "gzip", "gzip", "x-gzip", "GZIP", "gzip, gzip", "deflate", "br", "identity", ""]))
        framing = r.randrange(12)
        if framing < 4:
            body = self.chunked(body)
            headers.append("Transfer-Encoding: " + r.choice(["chunked"] * 8 + ["Chunked", "identity, chunked", "chunked, gzip", "x"]))
            if r.randrange(12) == 0:
                headers.append(f"Content-Length: {len(body)}")
        elif framing < 11:
            headers.append(f"Content-Length: {len(body)}")
        else:
            lengths = [0, len(body) // 2, len(body) + 5, -1, 1 << 63, 1 << 64, "0x10", "", f"{len(body)}, {len(body)}", "+5"]
            headers += [f"Content-Length: {r.choice(lengths)}" for _ in range(r.choice([0, 1, 1, 2]))]
        r.shuffle(headers)
        version = "HTTP/1.1" if r.randrange(25) else r.choice(["HTTP/1.0", "HTTP/2.0", "HTTP/0.9", "HTTP/1.9", "", "XTTP/1.1"])
        end = "\r\n" if r.randrange(40) else r.choice(["\n", "\r", "\r\n\r\n"])
        head = end.join([f"{method} {target} {version}", *headers]) + end * 2
        data = head.encode("latin-1", "replace") + body
        return self.spoilt(data) if r.randrange(8) == 0 else data

    def send(self):
        """Sends something and reads what comes back; what was sent, and the answers' bytes."""
        r = self.r
        data = b"".join(self.request() for _ in range(r.choice([1, 1, 1, 1, 2, 5])))
        with contextlib.closing(socket.create_connection(self.address, timeout=ANSWER_SECONDS)) as s:
            s.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            try:
                for piece in self.cut(data):
                    s.sendall(piece)
                    if r.randrange(20) == 0:
                        time.sleep(0.002)
                how = r.randrange(10)
                if how == 0:
                    # Gone at once, without a word.
                    s.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                    return data, b""
                if how == 1:
                    s.shutdown(socket.SHUT_WR)
                    return data, self.rest(s, data)
                # Some wait for more than comes: then there is no more.
                answer = b""
                s.settimeout(r.choice([0.02, 0.1, 0.3]))
                with contextlib.suppress(TimeoutError):
                    while piece := s.recv(1 << 16):
                        answer += piece
                        if answer.endswith(b"\r\n\r\n") and r.randrange(4):
                            break
                s.settimeout(ANSWER_SECONDS)
                s.shutdown(socket.SHUT_WR)
                return data, answer + self.rest(s, data)
            except (ConnectionError, BrokenPipeError, OSError) as error:
                # It may close on us whenever it likes; but it may not leave us waiting.
                assert not isinstance(error, TimeoutError), f"nothing came, and the connection stayed: {shown(data)}"
                return data, b""

    def rest(self, s, data):
        answer = b""
        while piece := s.recv(1 << 16):
            answer += piece
        return answer

    def cut(self, data):
        r = self.r
        kind = r.randrange(6)
        if kind == 0 and len(data) < 400:
            return [data[i : i + 1] for i in range(len(data))]
        if kind == 1 and data:
            cuts = sorted(r.randrange(len(data)) for _ in range(r.randrange(1, 6)))
            return [data[a:b] for a, b in zip([0, *cuts], [*cuts, len(data)])]
        return [data]


def shown(data):
    text = repr(data[:3000])
    return f"seed {SEED}, {len(data)} bytes: {text}\nall of it, zlib and base64: {base64.b64encode(zlib.compress(data))[:20000]}"


def statuses(data, answer):
    """The status codes of the answers; fails if these are none."""
    found = []
    while answer:
        head, blank, after = answer.partition(b"\r\n\r\n")
        if not blank:
            # Cut off by our own leaving: what there is begins like an answer.
            assert b"HTTP/1.1 "[: len(head)] == head[:9] or head.startswith(b"HTTP/1.0 "), f"{head[:300]!r}\n{shown(data)}"
            break
        lines = head.split(b"\r\n")
        status = re.fullmatch(rb"HTTP/1\.[01] ([1-5][0-9][0-9])( [^\r\n]*)?", lines[0])
        assert status, f"no status line: {lines[0][:300]!r}\n{shown(data)}"
        for line in lines[1:]:
            assert re.fullmatch(rb"[!#$%&'*+.^_`|~0-9A-Za-z-]+:[^\r\n\x00]*", line), f"no header: {line[:300]!r}\n{shown(data)}"
        headers = {name.lower(): value.strip() for name, _, value in (line.partition(b":") for line in lines[1:])}
        code = int(status[1])
        found.append(code)
        bodyless = code in (204, 304) or code < 200
        if not bodyless and headers.get(b"transfer-encoding") == b"chunked":
            after = unchunked(after, data)
        elif not bodyless and not (b"HEAD" in data and after[:5] in (b"", b"HTTP/")):
            after = after[int(headers.get(b"content-length", len(after))) :]
        answer = after
    return found


def unchunked(body, data):
    """What follows a chunked body."""
    if b"HEAD" in data and body[:5] in (b"", b"HTTP/"):
        return body
    while True:
        size, line_end, rest = body.partition(b"\r\n")
        if not line_end:
            return b""
        assert re.fullmatch(rb"[0-9A-Fa-f]+", size), f"no chunk: {size[:100]!r}\n{shown(data)}"
        length = int(size, 16)
        body = rest[length + 2 :]
        if length == 0:
            return rest[2:]


class Control:
    """Somebody else's writes, before, between and after: each is to be there exactly once."""

    def __init__(self, address):
        self.host, self.count = "%s:%d" % address, 0

    def write(self):
        line = f"control,i=c{self.count} v={self.count}i {1_700_000_000_000_000_000 + self.count}\n"
        for _ in range(100):
            with contextlib.closing(http.client.HTTPConnection(self.host, timeout=ANSWER_SECONDS)) as connection:
                connection.request("POST", "/write", line, {"tandem-token": f"control-{self.count}"})
                answer = connection.getresponse()
                if answer.status == 204:
                    break
                assert answer.status == 503, f"{answer.status}: {answer.read()}"
            time.sleep(0.1)
        else:
            raise AssertionError("a good write was answered 503 a hundred times")
        self.count += 1


@pytest.mark.seconds(int(SECONDS) + 300)
def test_odd_requests_on_all_routes(own_node):
    host, port = own_node.ready["http"].rsplit(":", 1)
    address = (host, int(port))
    control, failures, codes, sent = Control(address), [], {}, itertools.count()
    ended = threading.Event()

    def run(number):
        sender = Sender(address, SEED * 1000 + number)
        while not ended.is_set():
            next(sent)
            try:
                for code in statuses(*sender.send()):
                    codes[code] = codes.get(code, 0) + 1
            except Exception as error:  # noqa: BLE001: the thread's failure is the test's
                failures.append(f"{type(error).__name__}: {error}")
                ended.set()

    control.write()
    threads = [threading.Thread(target=run, args=(n,)) for n in range(THREADS)]
    for thread in threads:
        thread.start()
    try:
        deadline = time.monotonic() + SECONDS
        while time.monotonic() < deadline and not ended.wait(0.25):
            control.write()
            assert own_node.is_up(), own_node.log_end()
            assert own_node.resident_bytes() < MEMORY_BYTES
    finally:
        ended.set()
        for thread in threads:
            thread.join(3 * ANSWER_SECONDS)
    print(f"seed {SEED}: {next(sent)} connections, answers {dict(sorted(codes.items()))}, {control.count} control writes")
    assert not failures, failures[0]
    control.write()
    assert own_node.is_up(), own_node.log_end()
    log = own_node.log.read_text(errors="replace")
    assert "panicked" not in log, log[-5000:]
    assert not codes.get(500), f"500 was answered, seed {SEED}\n{own_node.log_end()}"
    # What is right was taken, what is wrong refused: else this fuzzes nothing.
    assert codes.get(204) and codes.get(400), codes
    for path, status in (("/healthz", 200), ("/readyz", 200), ("/health", 200), ("/ping", 204), ("/settings", 200), ("/metrics", 200)):
        assert own_node.get(path)[0] == status

    def there():
        return own_node.sql("SELECT count(*), count(DISTINCT i), sum(v) FROM control")

    expected = [(control.count, control.count, control.count * (control.count - 1) // 2)]
    assert there() == expected
    own_node.restart()
    assert there() == expected
