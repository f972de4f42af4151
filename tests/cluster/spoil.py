"""An HTTP proxy in front of an object store that spoils PUTs, in the ways in which networks and services do.

Promises: what is not spoiled passes unchanged, the `Host` header included, so that signatures hold. Every spoiled request is
counted by its way. Nothing is listened to but loopback.
"""

import asyncio
import collections
import random
import socket
import struct
import threading

from cluster.served import Served

HEAD_MAX = 1 << 20


def _error(status, reason, code):
    body = f'<?xml version="1.0" encoding="UTF-8"?>\n<Error><Code>{code}</Code><Message>{reason}</Message></Error>'.encode()
    return f"HTTP/1.1 {status} {reason}\r\nContent-Type: application/xml\r\nContent-Length: {len(body)}\r\n\r\n".encode() + body


ERRORS = {
    "408": _error(408, "Request Timeout", "RequestTimeout"),
    "409": _error(409, "Conflict", "ConditionalRequestConflict"),
    "412": _error(412, "Precondition Failed", "PreconditionFailed"),
    "429": _error(429, "Too Many Requests", "TooManyRequests"),
    "500": _error(500, "Internal Server Error", "InternalError"),
    "503": _error(503, "Slow Down", "SlowDown"),
    "504": _error(504, "Gateway Timeout", "GatewayTimeout"),
}

# What becomes of the request, and what the client is told.
WAYS = [
    *(f"not applied, {status}" for status in ("500", "503", "409", "412")),
    "not applied, closed", "not applied, reset", "not applied, no answer",
    *(f"applied, {status}" for status in ("500", "503", "504", "408", "429")),
    "applied, closed", "applied, reset", "applied, torn answer", "applied, no answer",
    "applied late, no answer", "delayed", "sent twice",
]  # fmt: skip


class _Gone(Exception):
    """The other side closed the connection."""


class Proxy(Served):
    """Listens on `port`, passes on to `upstream` on loopback."""

    def __init__(self, upstream, seed=0, patience=3.0):
        super().__init__("proxy")
        self.upstream = upstream
        # How long the clients wait for an answer: requests that get none are held a little longer.
        self.patience = patience
        self.spoiled = collections.Counter()
        self.passed = 0
        self._chance = random.Random(seed)
        self._share = lambda path: 0.0
        self._armed = collections.deque()
        self._deck = []
        self._lock = threading.Lock()

    def spoil(self, share):
        """From now on `share(path)` of the PUTs are spoiled, each way about as often as any other."""
        self._share = share

    def heal(self):
        with self._lock:
            self._share = lambda path: 0.0
            self._armed.clear()

    def arm(self, way, part):
        """Spoils the next PUT whose path contains `part`."""
        with self._lock:
            self._armed.append((way, part))

    def armed(self):
        with self._lock:
            return bool(self._armed)

    def _way(self, method, path):
        if method != "PUT":
            return None
        with self._lock:
            way = None
            if self._armed and self._armed[0][1] in path:
                way = self._armed.popleft()[0]
            elif self._chance.random() < self._share(path):
                if not self._deck:
                    self._deck = self._chance.sample(WAYS, len(WAYS))
                way = self._deck.pop()
            if way:
                self.spoiled[way] += 1
            else:
                self.passed += 1
            return way

    async def _listen(self):
        return await asyncio.start_server(self._serve, "127.0.0.1", 0, limit=HEAD_MAX)

    async def _serve(self, reader, writer):
        try:
            while True:
                request, method, path = await _request(reader, writer)
                way = self._way(method, path)
                answer = await self._forward(request, method) if way is None else await self._spoil(way, request, method, writer)
                writer.write(answer)
                await writer.drain()
                if answer == b"":
                    return
        except (_Gone, ConnectionError, asyncio.IncompleteReadError, asyncio.CancelledError, OSError):
            pass
        finally:
            writer.close()

    async def _spoil(self, way, request, method, writer):
        """What the client is answered; nothing, if the connection ends."""
        what, _, told = way.partition(", ")
        if way == "delayed":
            await asyncio.sleep(self._chance.uniform(0.2, 1.0))
            return await self._forward(request, method)
        if way == "sent twice":
            await self._forward(request, method)
            return await self._forward(request, method)
        if what == "applied late":
            await asyncio.sleep(self.patience + 1)
        answer = b"" if what == "not applied" else await self._forward(request, method)
        if told in ERRORS:
            return ERRORS[told]
        if told == "torn answer":
            writer.write(answer[:11])
            await writer.drain()
        elif told == "no answer" and what != "applied late":
            await asyncio.sleep(self.patience + 1)
        elif told == "reset":
            writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            writer.transport.abort()
            raise _Gone
        return b""

    async def _forward(self, request, method):
        reader, writer = await asyncio.open_connection("127.0.0.1", self.upstream, limit=HEAD_MAX)
        try:
            writer.write(request)
            await writer.drain()
            return await _answer(reader, method)
        finally:
            writer.close()


async def _head(reader):
    try:
        head = await reader.readuntil(b"\r\n\r\n")
    except asyncio.IncompleteReadError:
        raise _Gone from None
    lines = head.decode("latin-1").split("\r\n")
    fields = {name.strip().lower(): value.strip() for name, _, value in (line.partition(":") for line in lines[1:] if line)}
    return head, lines[0], fields


async def _body(reader, fields):
    """The bytes of a body as they stand on the wire; None when only the connection's end ends it."""
    if "chunked" in fields.get("transfer-encoding", "").lower():
        body = b""
        while True:
            line = await reader.readuntil(b"\r\n")
            size = int(line.split(b";")[0], 16)
            body += line + await reader.readexactly(size + 2)
            if size == 0:
                return body
    if "content-length" in fields:
        return await reader.readexactly(int(fields["content-length"]))
    return None


async def _request(reader, writer):
    head, first, fields = await _head(reader)
    method, path = first.split(" ")[:2]
    if fields.get("expect", "").lower() == "100-continue":
        writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
    return head + (await _body(reader, fields) or b""), method, path


async def _answer(reader, method):
    while True:
        head, first, fields = await _head(reader)
        status = int(first.split(" ")[1])
        # An interim answer to a body that was sent already.
        if status != 100:
            break
    if method == "HEAD" or status in (204, 304):
        return head
    body = await _body(reader, fields)
    if body is None:
        body = await reader.read()
        head = head[:-2] + f"Content-Length: {len(body)}\r\n\r\n".encode()
    return head + body
