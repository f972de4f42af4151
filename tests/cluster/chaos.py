"""One run: a cluster, its clients, the driver, and the verdict.

    outcome = Chaos(store, directory, seed=1, kills=300, seconds=75).run()

Raises AssertionError with everything needed to understand and repeat the run; the stored database is left where it is.
"""

import collections
import random
import threading
import time

from cluster import rows, verify
from cluster.clients import Client, Operator, Reader
from cluster.driver import Driver, Member, Pace, follows_store, replicas_exist
from cluster.wire import Failed, Wire

START_SECONDS = 90
FAULTS_KEPT = 12
# A run says this often how far it has come.
PROGRESS_SECONDS = 10


class Trouble:
    """What broke, and what happened when."""

    def __init__(self):
        self.began = time.monotonic()
        self.found = threading.Event()
        self.faults = []
        self.count = 0
        self.events = collections.deque(maxlen=4000)
        self._lock = threading.Lock()

    def now(self):
        return time.monotonic() - self.began

    def event(self, who, text):
        self.events.append((self.now(), who, text))

    def report(self, invariant, text, ops=(), members=()):
        """An invariant does not hold. The run ends early; the first faults are kept in full."""
        with self._lock:
            self.count += 1
            if len(self.faults) < FAULTS_KEPT:
                self.faults.append((self.now(), invariant, text, [op.history() for op in list(ops)[:5]], list(members)))
        self.event("fault", f"{invariant}: {text[:200]}")
        self.found.set()

    def text(self, members):
        lines, named = [], set()
        for at, invariant, text, histories, about in self.faults:
            lines.append(f"* {at:.3f} s, invariant broken: {invariant}\n  {text}")
            lines += ["  " + history.replace("\n", "\n  ") for history in histories]
            named |= {member.name for member in about}
            named |= {member.name for member in members for history in histories if f" {member.name} (life" in history}
        if self.count > len(self.faults):
            lines.append(f"* and {self.count - len(self.faults)} more")
        first = self.faults[0][0]
        lines.append("\nwhat happened to the nodes just before:")
        lines += [f"  {at:8.3f} s  {who}: {what}" for at, who, what in list(self.events) if first - 6 < at < first + 0.5]
        for member in members:
            if member.name in named or not named:
                lines += [f"\nlast lines of {member.name}:", member.log_tails()]
        return "\n".join(lines)


class Chaos:
    """Parameters and shared state of a run."""

    def __init__(self, store, directory, *, seed, kills, seconds, writers=3, followers=2, clients=4, readers=2, options=(), pace=None,
                 row_counts=None, call_seconds=1.5, may_fail_to_start=False, rerun="", on_end=None):  # fmt: skip
        self.store, self.directory, self.seed = str(store), directory, seed
        self.kills, self.seconds, self.pace = kills, seconds, pace or Pace()
        self.row_counts = row_counts or (1, 2, 10, 60, 300)
        # By default shorter than nodes are frozen at times: a write is tried elsewhere, and the frozen node wakes up with it.
        self.call_seconds = call_seconds
        self.may_fail_to_start = may_fail_to_start
        self.rerun, self.on_end = rerun, on_end
        self.trouble = Trouble()
        self.journal = rows.Journal()
        self.enough, self.healed = threading.Event(), threading.Event()
        self.failures, self.upkeep = collections.Counter(), collections.Counter()
        self.altered = {table: set() for table in rows.TABLES}
        self.reads = self.repeats = 0
        self._acked = {}
        # The address of a node's last life, once nobody listens there any more: each life has a new one.
        self.refused = {}
        self.options = list(options)
        self.members = [Member(f"w{i}", "writer", store, directory, options) for i in range(1, writers + 1)]
        if followers and replicas_exist():
            for i in range(1, followers + 1):
                # One of them is never pushed to.
                follow = ["--follow", "store"] if i == 2 and follows_store() else []
                self.members.append(Member(f"f{i}", "replica", store, directory, [*options, "--role", "replica", *follow]))
        self.actors = [Client(i, self) for i in range(1, clients + 1)]
        self.readers = [*(Reader(i, self) for i in range(1, readers + 1)), Operator(self)]
        self.tokens = self.quorum = self.min_seq = False

    def now(self):
        return self.trouble.now()

    def pick(self, chance, writers_only=True):
        """A node to talk to that has not refused a connection yet, frozen or not. Mostly one that writes, if asked so."""
        with_followers = not writers_only or chance.random() < 0.03
        known = [m for m in self.members if m.address and (with_followers or m.role == "writer") and self.refused.get(m.name) != m.address]
        return chance.choice(known) if known else None

    def acked_by(self, name, life, seq):
        key = (name, life)
        self._acked[key] = max(self._acked.get(key, 0), seq)

    def acked_on(self, name, life):
        return self._acked.get((name, life), 0)

    # the run

    def run(self):
        """The figures of the run as text."""
        try:
            return self._run()
        finally:
            self.enough.set()
            for member in self.members:
                member.close()

    def _run(self):
        self.start_all()
        self.learn()
        self.create()
        driver = Driver(self.members, random.Random(self.seed), self.pace, self.kills, self.seconds, self.trouble, self.may_fail_to_start)
        began = time.monotonic()
        for thread in [*self.actors, *self.readers, driver]:
            thread.start()
        while driver.is_alive():
            driver.join(PROGRESS_SECONDS)
            print(self.progress(driver, time.monotonic() - began), flush=True)
        chaos_seconds = time.monotonic() - began
        self.healed.set()
        self.enough.set()
        if self.on_end:
            self.on_end()
        for thread in [*self.actors, *self.readers]:
            thread.join(120)
            if thread.is_alive():
                self.trouble.report("harness", f"{thread.name} did not end")
        self.raise_troubles()
        figures = self.figures(driver, chaos_seconds)
        found = self.judge()
        self.raise_troubles()
        return figures + found

    def start_all(self):
        """All nodes at the same moment: the database is created in a race."""
        for member in self.members:
            member.launch()
        deadline = time.monotonic() + START_SECONDS
        while any(member.state != "up" for member in self.members):
            for member in self.members:
                code = member.look()
                if code is not None:
                    if not self.may_fail_to_start or code != 1 or time.monotonic() > deadline:
                        self.trouble.report("liveness", f"{member.name} did not start: exit code {code}", members=[member])
                        self.raise_troubles()
                    member.launch()
            if time.monotonic() > deadline:
                self.trouble.report("liveness", f"not all nodes are ready after {START_SECONDS} s", members=[m for m in self.members if m.state != "up"])
                self.raise_troubles()
            time.sleep(0.02)

    def learn(self):
        """What the server understands: later parts of the design are used as they arrive."""

        def understands(headers, statement):
            try:
                with Wire(self.members[0].address, 20) as wire:
                    wire.execute(statement, headers) if statement.startswith("CREATE") else wire.query(statement, headers)
                return True
            except Failed as failure:
                if failure.meaning == "rejected" and "not supported yet" in failure.text:
                    return False
                raise

        self.min_seq = understands({"tandem-min-seq": 0}, "SELECT 1")
        self.tokens = understands({"tandem-token": f"{self.seed}/probe"}, "CREATE TABLE IF NOT EXISTS probed (n BIGINT)")
        self.quorum = understands({"tandem-ack": "quorum(1)"}, "CREATE TABLE IF NOT EXISTS probed (n BIGINT)")

    def create(self):
        """The same tables on all writers at once."""
        failures = []

        def work(member):
            try:
                with Wire(member.address, 60) as wire:
                    for statement in rows.CREATE:
                        wire.execute(statement)
            except Failed as failure:
                failures.append((member, failure))

        writers = [member for member in self.members if member.role == "writer"]
        threads = [threading.Thread(target=work, args=(member,)) for member in writers]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        for member, failure in failures:
            self.trouble.report("the same CREATE TABLE IF NOT EXISTS on all nodes succeeds", str(failure), members=[member])
        self.raise_troubles()
        with Wire(writers[0].address, 60) as wire:
            wire.execute("ALTER DATABASE SET (checkpoint_commits = 50)")
        # From here on nobody may be told that a table does not exist.
        verify.level(self.members, self.trouble)
        self.raise_troubles()

    def judge(self):
        """Everything that must hold in the end; figures of it."""
        if verify.level(self.members, self.trouble) is None:
            return ""
        states = verify.states_of(self.members)
        verify.equal(states, self.trouble, "at the end")
        found, unacknowledged = verify.against_journal(states[0], self.journal, self.trouble, "at the end")
        verify.order(self.journal, self.trouble)
        verify.in_log(states[0], self.journal, self.trouble)
        verify.altered(states[0], self.altered, self.trouble, "at the end")
        self.raise_troubles()
        # Compaction and a checkpoint change no answer, and a node that starts from nothing finds the same.
        with Wire(self.members[0].address, verify.SECONDS) as wire:
            for table in rows.TABLES:
                wire.execute(f"OPTIMIZE TABLE {table}")
            wire.execute("CHECKPOINT")
        fresh = Member("fresh", "writer", self.store, self.directory, self.options)
        self.members.append(fresh)
        began = time.monotonic()
        fresh.launch()
        while fresh.state != "up":
            code = fresh.look()
            if code is not None or time.monotonic() - began > START_SECONDS:
                self.trouble.report("liveness", f"a fresh node is {fresh.state} after {START_SECONDS} s, exit code {code}", members=[fresh])
                return ""
            time.sleep(0.02)
        started = time.monotonic() - began
        if verify.level(self.members, self.trouble) is None:
            return ""
        after = verify.states_of(self.members)
        verify.equal(after, self.trouble, "compacted, with a fresh node")
        for table in rows.TABLES:
            if after[-1].hashes[table] != states[0].hashes[table]:
                text = f"{table} was {states[0].hashes[table]}, compacted it is {after[-1].hashes[table]} (rows, hash)"
                text += "\n" + verify.difference(states[0].tables[table], after[-1].tables[table])
                self.trouble.report("compaction changes no answer (I12)", text, members=[fresh])
        total = sum(rows_ for rows_, _ in after[-1].hashes.values())
        return (
            f"{found} operations found, {unacknowledged} of them never acknowledged; {total} rows, {after[-1].log.num_rows} commits;"
            f" equal on {len(after)} nodes, of which a fresh one was ready in {started:.2f} s"
        )

    def progress(self, driver, seconds):
        """One line for whoever watches a long run."""
        ops = self.journal.all()
        outcomes = collections.Counter(op.outcome for op in ops)
        retried = sum(len(op.attempts) > 1 for op in ops)
        up = sum(member.state == "up" for member in self.members)
        return (
            f"{seconds:5.0f} s: {driver.kills} of {self.kills} kills ({driver.kills_while_starting} while starting),"
            f" {driver.freezes} freezes; {outcomes['acked']} acknowledged, {retried} tried more than once, {self.repeats} repeated,"
            f" {outcomes['unknown']} unknown, {outcomes[None]} under way; {self.reads} snapshots checked;"
            f" {up} of {len(self.members)} nodes up; {self.trouble.count} broken invariants"
        )

    def figures(self, driver, seconds):
        ops = self.journal.all()
        outcomes = collections.Counter(op.outcome for op in ops)
        retried = sum(len(op.attempts) > 1 for op in ops)
        starts = sorted(driver.start_seconds) or [0.0]
        common = "; ".join(f"{count} x {text}" for text, count in self.failures.most_common(8))
        return (
            f"seed {self.seed}: {driver.kills} kills ({driver.kills_while_starting} while starting), {driver.freezes} freezes,"
            f" {driver.stops} stops, {driver.failed_starts} failed starts in {seconds:.0f} s; start median {starts[len(starts) // 2]:.2f} s,"
            f" longest {starts[-1]:.2f} s\n"
            f"nodes: {', '.join(m.name for m in self.members)}; tokens {'yes' if self.tokens else 'no'}, min-seq"
            f" {'yes' if self.min_seq else 'no'}, quorum {'yes' if self.quorum else 'no'}\n"
            f"operations: {outcomes['acked']} acknowledged ({retried} tried more than once, {self.repeats} repeated on purpose),"
            f" {outcomes['unknown']} unknown, {outcomes['absent']} absent; {self.reads} snapshots checked;"
            f" {self.upkeep['alter']} columns added, {self.upkeep['optimize']} compactions, {self.upkeep['checkpoint']} checkpoints\n"
            f"failures seen: {common}\n"
        )

    def raise_troubles(self):
        if self.trouble.faults:
            text = self.trouble.text(self.members)
            raise AssertionError(f"{self.trouble.count} broken invariants, seed {self.seed}\n{text}\n\nstore: {self.store}\nrerun: {self.rerun}")
