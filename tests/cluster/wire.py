"""Requests to one node, and what their failures mean.

Promises: every call is bounded in time, and a failure says whether the request can have had an effect:

    absent     it had none, and will have none
    unknown    it may have had its effect, or may have it later
    committed  it had its effect, at the failure's `seq`; only a wish on top of that was not met
    rejected   the node understood the request and says no
"""

import contextlib
import json
import re

import pyarrow as pa
import pyarrow.flight as fl

# Definite answers, in the words in which the Flight client tells gRPC's codes.
REJECTIONS = {
    "invalid argument", "not found", "already exists", "unauthorized", "permission denied", "precondition failed", "failed precondition",
    "aborted", "out-of-range", "out of range", "unimplemented", "data loss", "unauthenticated",
}  # fmt: skip
NOT_TAKEN = {"not-writer", "overloaded"}
STATUS = re.compile(r"(?:Flight|gRPC) returned ([a-z -]+?) error")


class Failed(Exception):
    """A request that did not succeed. `refused`: nobody listens at the address."""

    def __init__(self, meaning, text, seq=None, code=None, refused=False):
        super().__init__(f"{meaning}: {text}")
        self.meaning, self.text, self.seq, self.code, self.refused = meaning, text, seq, code, refused


class _Trailers(fl.ClientMiddlewareFactory):
    """Remembers the headers and trailers of the last call."""

    def __init__(self):
        super().__init__()
        self.seen = {}

    def start_call(self, info):
        self.seen = {}
        return _Catch(self.seen)


class _Catch(fl.ClientMiddleware):
    def __init__(self, into):
        super().__init__()
        self.into = into

    def received_headers(self, headers):
        for key, values in headers.items():
            if values:
                self.into[key.lower()] = values[-1]


def _varint(number):
    out = bytearray()
    while number > 0x7F:
        out.append(number & 0x7F | 0x80)
        number >>= 7
    return bytes([*out, number])


def _field(number, value):
    """One field of a protobuf message: bytes, text, or an integer."""
    if isinstance(value, int):
        return _varint(number << 3) + _varint(value)
    value = value.encode() if isinstance(value, str) else value
    return _varint(number << 3 | 2) + _varint(len(value)) + value


def _command(name, body):
    url = f"type.googleapis.com/arrow.flight.protocol.sql.{name}"
    return fl.FlightDescriptor.for_command(_field(1, url) + _field(2, body))


def _append_to(table):
    # if_not_exist = FAIL, if_exists = APPEND
    return _command("CommandStatementIngest", _field(1, _field(1, 2) + _field(2, 2)) + _field(2, table))


def _short(text):
    return " ".join(text.split("gRPC client debug context")[0].split())[:300]


class Wire:
    """A connection to the node at an address; used by one thread."""

    def __init__(self, address, seconds=5.0):
        self.seconds = seconds
        self.trailers = _Trailers()
        self.client = fl.FlightClient(address, middleware=[self.trailers])

    def close(self):
        with contextlib.suppress(Exception):
            self.client.close()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()

    def trailer(self, name):
        value = self.trailers.seen.get(name)
        return value.decode() if isinstance(value, bytes) else value

    def put(self, table, batches, acked, headers=None, tokens=None):
        """A plain DoPut: `acked(i, answer)` is called for each batch that the node acknowledges."""

        def stream(writer, reader):
            for i, batch in enumerate(batches):
                if tokens:
                    writer.write_with_metadata(batch, json.dumps({"token": tokens[i]}).encode())
                else:
                    writer.write_batch(batch)
            writer.done_writing()
            for i in range(len(batches)):
                answer = reader.read()
                if answer is None:
                    return False
                acked(i, json.loads(answer.to_pybytes()))
            return True

        self._do_put(fl.FlightDescriptor.for_path(table), batches[0].schema, headers, stream)

    def ingest(self, table, batches, headers=None):
        """All batches as one transaction; its seq, if the node tells."""

        def stream(writer, reader):
            for batch in batches:
                writer.write_batch(batch)
            writer.done_writing()
            return reader.read() is not None

        self._do_put(_append_to(table), batches[0].schema, headers, stream)
        seq = self.trailer("tandem-seq")
        return int(seq) if seq else None

    def _do_put(self, descriptor, schema, headers, stream):
        try:
            writer, reader = self.client.do_put(descriptor, schema, self.options(headers))
        except Exception as error:
            raise self.meaning(error) from None
        first = None
        try:
            complete = stream(writer, reader)
        except Exception as error:  # noqa: BLE001
            first, complete = error, False
        try:
            # The call's status comes with its end; a failed write only says that it failed.
            writer.close()
        except Exception as error:  # noqa: BLE001
            if not complete:
                raise self.meaning(error) from None
        if not complete:
            raise self.meaning(first) if first else Failed("unknown", "the stream ended before all was acknowledged")

    def execute(self, statement, headers=None):
        """Runs a statement that changes something; the answer's metadata."""
        try:
            info = self.client.get_flight_info(_command("CommandStatementQuery", _field(1, statement)), self.options(headers))
        except Exception as error:
            raise self.meaning(error) from None
        return json.loads(info.app_metadata or b"{}")

    def query(self, query, headers=None):
        """(rows, seq of the snapshot) of a query."""
        try:
            options = self.options(headers)
            info = self.client.get_flight_info(_command("CommandStatementQuery", _field(1, query)), options)
            rows = self.client.do_get(info.endpoints[0].ticket, options).read_all()
        except Exception as error:
            raise self.meaning(error) from None
        return rows, json.loads(info.app_metadata)["snapshot_seq"]

    def status(self):
        """The node's state, as `tandem.Status` answers it."""
        try:
            [result] = self.client.do_action(fl.Action("tandem.Status", b""), self.options())
            return json.loads(result.body.to_pybytes())
        except Exception as error:
            raise self.meaning(error) from None

    def options(self, headers=None):
        pairs = [(k.encode(), str(v).encode()) for k, v in (headers or {}).items()]
        return fl.FlightCallOptions(timeout=self.seconds, headers=pairs)

    def meaning(self, error):
        """The failure behind an error of the Flight client."""
        if isinstance(error, Failed):
            return error
        text, code = str(error), self.trailer("tandem-error")
        found = STATUS.search(text)
        status = found[1] if found else None
        if code in NOT_TAKEN:
            return Failed("absent", _short(text), code=code)
        if code == "quorum-timeout" and self.trailer("tandem-seq"):
            return Failed("committed", _short(text), seq=int(self.trailer("tandem-seq")), code=code)
        if isinstance(error, fl.FlightUnavailableError):
            unsent = "failed to connect" in text or "Connection refused" in text
            return Failed("absent" if unsent else "unknown", _short(text), code=code, refused="Connection refused" in text)
        rejected = status in REJECTIONS if status else isinstance(error, (pa.ArrowInvalid, pa.ArrowKeyError))
        return Failed("rejected" if rejected else "unknown", f"{type(error).__name__}: {_short(text)}", code=code)
