"""Those who use the cluster while it is disturbed: writers, readers who check each snapshot, and an operator.

A client sends one operation after the other and retries each under its token, on any node, until it is settled. Where the server
knows no tokens it retries only what is known to have had no effect.
"""

import itertools
import random
import re
import threading
import time

from cluster import rows
from cluster.wire import Failed, Wire

READ_SECONDS = 20.0
# Once nobody disturbs the nodes any more, every write must be settled within this time.
SETTLE_SECONDS = 60
# Columns that the operator adds in one run, so that the tables of a long one still fit into memory where they are compared.
COLUMNS_MAX = 60


class Actor(threading.Thread):
    """A thread with connections of its own; what it raises becomes the run's failure."""

    def __init__(self, name, run):
        super().__init__(daemon=True, name=name)
        self.cluster = run
        self.chance = random.Random(f"{run.seed} {name}")
        self.wires = {}

    def run(self):
        try:
            while not self.cluster.enough.is_set():
                self.step()
        except Exception as error:  # noqa: BLE001
            self.cluster.trouble.report("harness", f"{self.name} failed: {type(error).__name__}: {error}")
        finally:
            for _, wire in self.wires.values():
                wire.close()

    def wire(self, member, seconds=None):
        address, known = member.address, self.wires.get(member.name)
        if known and known[0] == address:
            return known[1]
        if known:
            known[1].close()
        self.wires[member.name] = (address, Wire(address, seconds or self.cluster.call_seconds))
        return self.wires[member.name][1]

    def forget(self, member, failure):
        """Drops the connection; an address that refused is not tried again by anybody."""
        if known := self.wires.pop(member.name, None):
            known[1].close()
            if failure.refused:
                self.cluster.refused[member.name] = known[0]

    def saw(self, failure):
        """Counts a failure by its text, numbers left out."""
        self.cluster.failures[f"{failure.meaning}: {re.sub(r'[0-9a-f]{8,}|[0-9]+', '#', failure.text)[:150]}"] += 1


class Client(Actor):
    """Writes numbered operations, one after the other."""

    def __init__(self, number, run):
        super().__init__(f"client {number}", run)
        self.number = number
        self.next = 0
        self.groups = itertools.count()
        self.lock = threading.Lock()

    def step(self):
        kind = self.chance.choices(["put", "burst", "insert", "ingest"], [5, 2, 2, 1])[0]
        ops = [self.new(kind) for _ in range(self.chance.randint(2, 4) if kind == "burst" else 1)]
        group, table = next(self.groups), ops[0].table
        extra = ops[0].number // rows.OPS_PER_EXTRA % rows.EXTRA_COLUMNS if kind in ("put", "burst") and self.chance.random() < 0.3 else None
        for op in ops:
            op.group, op.table, op.extra = group, table, extra
            self.cluster.journal.add(op)
        rival = None
        if self.cluster.tokens and kind == "put" and self.chance.random() < 0.08:
            rival = threading.Thread(target=self.rival, args=(ops[0],))
            rival.start()
        self.settle(kind, ops)
        if rival:
            rival.join()
        if self.cluster.tokens and kind == "put" and self.chance.random() < 0.08:
            self.repeat(ops[0])

    def new(self, kind):
        number, self.next = self.next, self.next + 1
        count = self.chance.randint(1, 5) if kind == "insert" else self.chance.choice(self.cluster.row_counts)
        token = f"{self.cluster.seed}/{self.number}/{number}" if self.cluster.tokens else None
        return rows.Op(self.number, number, self.chance.choice(rows.TABLES), count, kind, 0, token=token)

    def settle(self, kind, ops):
        """Tries until each operation is acknowledged or nothing more can be known."""
        ever_unknown, deadline = False, None
        while pending := [op for op in ops if op.outcome is None]:
            failure = self.attempt(kind, pending)
            if failure is None:
                continue
            self.saw(failure)
            if failure.meaning == "rejected":
                self.cluster.trouble.report("no write is refused without reason", str(failure), ops=pending)
                return
            ever_unknown |= failure.meaning == "unknown"
            if failure.meaning == "unknown" and not self.cluster.tokens:
                for op in pending:
                    op.outcome = op.outcome or "unknown"
                return
            if self.cluster.trouble.found.is_set():
                return
            if self.cluster.healed.is_set():
                deadline = deadline or time.monotonic() + SETTLE_SECONDS
                if time.monotonic() > deadline:
                    for op in pending:
                        op.outcome = op.outcome or ("unknown" if ever_unknown else "absent")
                    self.cluster.trouble.report("liveness (I23)", f"not settled {SETTLE_SECONDS} s after the last fault: {failure}", ops=pending)
                    return
            time.sleep(self.chance.uniform(0.005, 0.06))

    def attempt(self, kind, ops):
        """One try on one node; the failure, if it was one."""
        member = self.cluster.pick(self.chance)
        if member is None:
            time.sleep(0.02)
            return Failed("absent", "no node listens")
        life, again = member.life, all(op.outcome == "acked" for op in ops)

        def acked(i, answer):
            self.acked(ops[i], answer, member, life)
            if again and answer.get("duplicate") is False:
                self.cluster.trouble.report("exactly once (I2)", "acknowledged before, it is not called a duplicate", ops=ops)

        before = sum(op.outcome is None for op in ops)
        quorum = self.cluster.quorum and self.chance.random() < 0.1
        try:
            self.send(self.wire(member), kind, ops, acked, quorum)
            return None
        except Failed as failure:
            self.forget(member, failure)
            left = [op for op in ops if op.outcome is None]
            if failure.meaning == "committed" and len(left) == 1:
                self.acked(left[0], {"seq": failure.seq}, member, life)
                return None
            if failure.meaning == "absent" and len(left) != before:
                failure.meaning = "unknown"
            for op in left:
                op.attempts.append((self.cluster.now(), member.name, life, str(failure)[:160]))
            return failure

    def send(self, wire, kind, ops, acked, quorum=False):
        headers = {"tandem-ack": "quorum(1)", "tandem-ack-timeout": "1s"} if quorum else {}
        if ops[0].extra is not None:
            headers["tandem-schema"] = "add"
        if kind == "burst" or kind == "put" and ops[0].number % 2:
            tokens = [op.token for op in ops] if self.cluster.tokens else None
            wire.put(ops[0].table, [rows.batch(op) for op in ops], acked, headers, tokens)
            return
        [op] = ops
        if op.token:
            headers["tandem-token"] = op.token
        if kind == "put":
            wire.put(op.table, [rows.batch(op)], acked, headers)
        elif kind == "insert":
            acked(0, wire.execute(rows.insert(op), headers))
        else:
            whole, third = rows.batch(op), max(1, op.rows // 3)
            parts = [whole.slice(at, third) for at in range(0, op.rows, third)]
            acked(0, {"seq": wire.ingest(op.table, parts, headers)})

    def acked(self, op, answer, member, life):
        seq, count = answer.get("seq"), answer.get("rows")
        op.attempts.append((self.cluster.now(), member.name, life, f"acknowledged at seq {seq}"))
        if count is not None and count != op.rows:
            self.cluster.trouble.report("exactly once (I2)", f"acknowledged with {count} rows, sent {op.rows}", ops=[op])
        with self.lock:
            if op.seq is not None and seq is not None and op.seq != seq:
                self.cluster.trouble.report("exactly once (I2)", f"acknowledged at seq {op.seq} and at seq {seq}", ops=[op])
            op.seq = seq if op.seq is None else op.seq
            op.outcome = "acked"
        if seq is not None:
            self.cluster.acked_by(member.name, life, seq)

    def repeat(self, op):
        """The same write under the same token once more, anywhere: answered with the first one's seq."""
        if op.outcome != "acked":
            return
        for _ in range(3):
            self.cluster.repeats += 1
            if self.attempt("put", [op]) is None:
                return

    def rival(self, op):
        """The same write under the same token at the same time, on whichever node."""
        member = self.cluster.pick(random.Random(f"{op.token} rival"))
        if member is None:
            return
        life = member.life
        try:
            with Wire(member.address, self.cluster.call_seconds) as wire:
                self.send(wire, "put", [op], lambda _, answer: self.acked(op, answer, member, life))
        except Failed as failure:
            op.attempts.append((self.cluster.now(), member.name, life, f"rival: {failure}"[:160]))
            if failure.meaning == "rejected":
                self.cluster.trouble.report("no write is refused without reason", f"sent twice at once: {failure}", ops=[op])


class Reader(Actor):
    """Reads what clients wrote, on any node, and holds each snapshot against the acknowledgements."""

    QUERY = " UNION ALL ".join(
        f"SELECT '{table}' AS t, client, op, count(*) AS rows, count(DISTINCT n) AS dist, max(of_rows) AS of_rows, sum(value) AS total"
        f" FROM {table} WHERE op >= {{low}} GROUP BY client, op"
        for table in rows.TABLES
    )

    def __init__(self, number, run):
        super().__init__(f"reader {number}", run)
        self.views = {}

    def step(self):
        time.sleep(self.chance.uniform(0.02, 0.25))
        member = self.cluster.pick(self.chance, writers_only=False)
        if member is None:
            return
        known = [op for op in self.cluster.journal.all() if op.outcome == "acked"]
        newest = {}
        for op in known:
            newest[op.client] = max(newest.get(op.client, 0), op.number)
        low = 0 if self.chance.random() < 0.05 or not newest else max(0, min(newest.values()) - 60)
        headers, demand = {}, None
        if self.cluster.min_seq and self.chance.random() < 0.5:
            demand = max((op.seq for op in known if op.seq), default=None)
            headers = {"tandem-min-seq": demand} if demand else {}
        life = member.life
        at_least = self.cluster.acked_on(member.name, life)
        try:
            found, seq = self.wire(member, READ_SECONDS).query(self.QUERY.format(low=low), headers)
        except Failed as failure:
            self.saw(failure)
            self.forget(member, failure)
            if failure.meaning == "rejected" and failure.code != "behind":
                self.cluster.trouble.report("reads are answered", str(failure), members=[member])
            return
        # A restart between the look at its life and the query makes another node of it.
        if member.life == life:
            self.in_order(member, life, seq, demand, at_least)
        self.judge(member, found.to_pylist(), seq, low)
        self.cluster.reads += 1

    def in_order(self, member, life, seq, demand, at_least):
        trouble = self.cluster.trouble
        before = self.views.get((member.name, life), 0)
        self.views[member.name, life] = seq
        if seq < before:
            trouble.report("views never fall (I6)", f"{member.name} showed seq {before}, then {seq}", members=[member])
        if seq < at_least:
            trouble.report("a node sees what it acknowledged (I6)", f"{member.name} acknowledged seq {at_least}, then showed {seq}", members=[member])
        if demand and seq < demand:
            trouble.report("min-seq is kept (I6)", f"{member.name} was asked for seq {demand} and showed {seq}", members=[member])

    def judge(self, member, found, seq, low):
        """A snapshot at `seq` holds exactly what was committed up to there, each batch whole."""
        trouble, journal = self.cluster.trouble, self.cluster.journal
        where = f"{member.name} at seq {seq}"
        seen = set()
        for row in found:
            op = journal.get(row["client"], row["op"])
            if op is None:
                trouble.report("nothing comes from nowhere", f"{where} has rows of client {row['client']} op {row['op']}, never sent", members=[member])
                continue
            seen.add((op.client, op.number))
            whole = (op.table, op.rows, op.rows, op.rows)
            if (row["t"], row["rows"], row["dist"], row["of_rows"]) != whole or row["total"] != rows.total(op):
                text = f"{where} has {row['rows']} rows ({row['dist']} distinct) in {row['t']}, not {op.rows} in {op.table}, or other values"
                trouble.report("batches are whole, once (I2, I3)", text, ops=[op], members=[member])
            elif op.seq is not None and op.seq > seq:
                trouble.report("a view is a prefix of the log (I3)", f"{where} shows what was committed at seq {op.seq}", ops=[op], members=[member])
        for op in journal.all():
            if op.seq is not None and op.seq <= seq and op.number >= low and (op.client, op.number) not in seen:
                trouble.report("acknowledged is there (I1)", f"{where} lacks an acknowledged write", ops=[op], members=[member])


class Operator(Actor):
    """Adds the same column on several nodes at once, compacts and checkpoints."""

    def __init__(self, run):
        super().__init__("operator", run)
        self.columns = 0

    def step(self):
        if self.cluster.enough.wait(self.chance.uniform(0.3, 1.5)):
            return
        what = self.chance.choice(["alter", "optimize", "checkpoint"])
        if what == "alter":
            if self.columns < COLUMNS_MAX:
                self.alter()
            return
        member = self.cluster.pick(self.chance)
        if member is None:
            return
        statement = "CHECKPOINT" if what == "checkpoint" else f"OPTIMIZE TABLE {self.chance.choice(rows.TABLES)}"
        try:
            self.wire(member, READ_SECONDS).execute(statement)
            self.cluster.upkeep[what] += 1
        except Failed as failure:
            self.saw(failure)
            self.forget(member, failure)

    def alter(self):
        """Nobody has to repeat an ALTER because of somebody else's."""
        table, column = self.chance.choice(rows.TABLES), f"a{self.columns}"
        self.columns += 1
        members = [member for member in self.cluster.members if member.role == "writer" and member.address]
        softly = " IF NOT EXISTS" if self.chance.random() < 0.3 else ""
        outcomes = {}

        def ask(member):
            try:
                with Wire(member.address, self.cluster.call_seconds) as wire:
                    wire.execute(f"ALTER TABLE {table} ADD COLUMN{softly} {column} DOUBLE")
                outcomes[member.name] = "done"
            except Failed as failure:
                self.saw(failure)
                there = failure.meaning == "rejected" and "exist" in failure.text and not softly
                outcomes[member.name] = "exists" if there else str(failure)
                if failure.meaning == "rejected" and not there:
                    text = f"ALTER TABLE {table} ADD COLUMN{softly} {column} on {member.name}: {failure}"
                    self.cluster.trouble.report("an ALTER needs no second try", text, members=[member])

        threads = [threading.Thread(target=ask, args=(member,)) for member in members]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        if outcomes and set(outcomes.values()) == {"exists"}:
            text = f"ADD COLUMN {column} to {table} was refused by all as existing: nobody had added it"
            self.cluster.trouble.report("an ALTER needs no second try", text)
        if "done" in outcomes.values() or "exists" in outcomes.values():
            self.cluster.altered[table].add(column)
            self.cluster.upkeep["alter"] += 1
