"""What Telegraf's output influxdb_v2 sends, and what it makes of each answer: its rules, as its source has them in 2026.

The program itself is in no package registry. `Output` here sends the same request: one POST per batch, gzip, chunked, a
token that may be empty; and judges status, Retry-After and body as it does.
"""

import contextlib
import gzip
import http.client
import json
import time

import harness
import programs
import pytest

STAMP = 1_700_000_000_000_000_000
SENT = {200, 201, 202, 204, 206, 207, 208}
DROPPED = {400, 406, 422}
SHUT_OUT = {401, 403}
WAITED = {429, 502, 503, 504}


class Output:
    """One output; `at` is the node it is configured for."""

    def __init__(self, at, token=""):
        self.at, self.token, self.retries = at, token, 0

    def send(self, lines):
        """(what Telegraf does next, the seconds it waits, the reason it logs)."""
        payload = gzip.compress(lines.encode())
        headers = {
            "User-Agent": "Telegraf/1.36.4 Go/1.25.3", "Authorization": f"Token {self.token}",
            "Content-Type": "text/plain; charset=utf-8", "Content-Encoding": "gzip", "Accept-Encoding": "gzip",
        }  # fmt: skip
        with contextlib.closing(http.client.HTTPConnection(self.at, timeout=30)) as connection:
            chunks = (payload[i : i + 4096] for i in range(0, len(payload), 4096))
            connection.request("POST", "/api/v2/write?bucket=b&org=o", chunks, headers, encode_chunked=True)
            answer = connection.getresponse()
            body = answer.read()
        if answer.status in SENT:
            self.retries = 0
            return "sent", 0, ""
        # What is no JSON is passed over: then its log tells no reason.
        with contextlib.suppress(ValueError):
            body = "{code}: {message}".format(**json.loads(body))
        reason = str(body)
        if answer.status == 413:
            return "split", 0, reason
        if answer.status in SHUT_OUT:
            return "kept", 0, reason
        if answer.status in WAITED:
            self.retries += 1
            asked = min(float(answer.headers.get("Retry-After", 0)), 600)
            return "waits", max(min(self.retries**2 / 40, 60), asked), reason
        if answer.status in DROPPED or 400 <= answer.status < 500:
            return "dropped", 0, reason
        assert answer.headers["X-Influx-Error"], "what it logs of other errors"
        return "kept", 0, reason


def metrics(count, host="my\\ host"):
    """As the plugins cpu and mem serialize: tags sorted, floats without exponents, integers with i."""
    lines = []
    for i in range(count):
        lines.append(f"cpu,cpu=cpu{i % 4},host={host} usage_idle=97.5,usage_user=1.25 {STAMP + i // 4}")
        lines.append(f"mem,host={host} available_percent=72.1,free={i}i,active=true {STAMP + i}")
    return "\n".join(lines) + "\n"


def test_batches_are_sent_without_a_token(node):
    output = Output(node.ready["http"])
    assert output.send(metrics(500)) == ("sent", 0, "")
    assert node.sql("SELECT count(*), sum(usage_idle), count(DISTINCT cpu) FROM cpu") == [(500, 48750.0, 4)]
    assert node.sql("SELECT host, sum(free), count(*) FROM mem GROUP BY host") == [("my host", 124750, 500)]
    assert output.send("\n")[0] == "sent", "an empty batch"


def test_a_new_tag_and_a_new_field_are_no_reason_to_drop(node):
    output = Output(node.ready["http"])
    assert output.send(f"grows,host=a v=1i {STAMP}\n")[0] == "sent"
    assert output.send(f'grows,dc=eu,host=a v=2i,w="text" {STAMP + 1}\n')[0] == "sent"
    assert node.sql("SELECT host, dc, v, w FROM grows ORDER BY v") == [("a", None, 1, None), ("a", "eu", 2, "text")]


def test_what_can_never_be_written_is_dropped_with_the_reason(node):
    output = Output(node.ready["http"])
    assert output.send(f"drops v=1i {STAMP}\n")[0] == "sent"
    does, _, reason = output.send(f'drops v="text" {STAMP}\n')
    assert does == "dropped" and reason.startswith("invalid: ") and 'table "drops", column "v"' in reason
    assert output.send("drops v=\n")[0] == "dropped"


def test_a_wrong_token_loses_nothing(tmp_path):
    with programs.guarded_node(tmp_path) as guarded:
        for token in ("", "wrong"):
            assert Output(guarded.ready["http"], token).send(metrics(1))[0] == "kept"
        assert Output(guarded.ready["http"], programs.WRITER).send(metrics(1))[0] == "sent"


def test_a_node_that_takes_no_writes_makes_it_wait(own_node, tmp_path):
    assert Output(own_node.ready["http"]).send(metrics(1))[0] == "sent"
    options = ["--role", "replica", "--follow", own_node.url]
    with harness.Node(own_node.store, tmp_path / "replica", options) as replica:
        output = Output(replica.ready["http"])
        for _ in range(3):
            does, seconds, reason = output.send(metrics(1))
            assert does == "waits" and 1 <= seconds <= 60, reason


def test_a_node_that_comes_back_gets_the_batch(own_node):
    assert Output(own_node.ready["http"]).send(metrics(1))[0] == "sent"
    own_node.kill()
    with pytest.raises(OSError):
        Output(own_node.ready["http"]).send(metrics(2))
    own_node.start()
    began = time.monotonic()
    while Output(own_node.ready["http"]).send(metrics(2))[0] != "sent":
        assert time.monotonic() - began < 30
        time.sleep(0.1)
    assert own_node.sql("SELECT count(*) FROM cpu")[0][0] >= 3
