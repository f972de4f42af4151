"""Nodes over their many lives, and the driver that ends, freezes and restarts them at random.

Promises: only processes started here are touched, each by its own handle; `close` ends them all. A node that ends by itself, or
does not start, is reported as the fault that it is.
"""

import collections
import contextlib
import dataclasses
import pathlib
import signal
import threading
import time

import harness

START_SECONDS = 60
# Exit codes after which starting again cannot help: wrong usage, a store refused, damage or a newer format.
HOPELESS = {2, 3, 4}


@dataclasses.dataclass(frozen=True)
class Pace:
    """Seconds, drawn from a range, short ones more often: up before the next blow, down before a restart, frozen."""

    life: tuple = (0.02, 1.5)
    down: tuple = (0.0, 0.3)
    frozen: tuple = (0.05, 3.0)
    # Shares of what happens to a running node; the rest is kill -9.
    freeze: float = 0.15
    stop: float = 0.05
    # Share of starts that are not left to finish.
    kill_while_starting: float = 0.1


class Member:
    """One node of the cluster: a name, a role and a directory that outlive its processes."""

    def __init__(self, name, role, store, directory, options=()):
        self.name, self.role = name, role
        self.node = harness.Node(store, directory / name, ["--node-id", name, *options])
        self.state = "down"
        self.life = 0
        self.address = None
        self.due = 0.0
        self.launched = 0.0
        self.doomed = False

    def launch(self):
        self.node.launch()
        self.life += 1
        self.launched = time.monotonic()
        self.state = "starting"

    def look(self):
        """Notices that the node is ready or has ended; its exit code, if it has."""
        if self.node.process is None:
            return None
        code = self.node.process.poll()
        if code is not None:
            self.node.process = None
            self.state = "down"
            return code
        if self.state == "starting" and self.node.is_ready():
            self.node.wait_ready()
            self.address = self.node.url
            self.state = "up"
        return None

    def kill(self):
        self.node.kill()
        self.state = "down"

    def freeze(self):
        self.node.freeze()
        self.state = "frozen"

    def thaw(self):
        self.node.thaw()
        self.state = "up"

    def close(self):
        self.node.close()
        self.state = "down"

    def threads(self):
        """What the process's threads are doing, as the kernel sees it: how many of each name, state and place of waiting."""
        found = collections.Counter()
        with contextlib.suppress(OSError, AttributeError):
            for task in pathlib.Path(f"/proc/{self.node.process.pid}/task").iterdir():
                state = (task / "stat").read_text().rpartition(")")[2].split()[0]
                found[f"{(task / 'comm').read_text().strip()} {state} {(task / 'wchan').read_text()}"] += 1
        return ", ".join(f"{count} x {what}" for what, count in found.most_common())

    def log_tails(self, lines=15):
        """The last lines of this life's log and of the one before."""
        logs = sorted(self.node.directory.glob("log-*.txt"), key=lambda path: int(path.stem.split("-")[1]))[-2:]
        parts = []
        for log in logs:
            with contextlib.suppress(OSError):
                parts += [f"--- {log}", *log.read_text(errors="replace").splitlines()[-lines:]]
        return "\n".join(parts)


class Driver(threading.Thread):
    """Disturbs members until enough were killed or the time is over, then heals them all."""

    def __init__(self, members, chance, pace, kills, seconds, trouble, may_fail_to_start=False):
        super().__init__(daemon=True, name="driver")
        self.members, self.chance, self.pace = members, chance, pace
        self.wanted, self.seconds = kills, seconds
        self.trouble = trouble
        self.may_fail_to_start = may_fail_to_start
        self.kills = self.kills_while_starting = self.freezes = self.stops = self.failed_starts = 0
        self.start_seconds = []

    def run(self):
        try:
            self.disturb()
            self.heal()
        except Exception as error:  # noqa: BLE001
            self.trouble.report("harness", f"the driver failed: {type(error).__name__}: {error}")

    def disturb(self):
        deadline = time.monotonic() + self.seconds
        for member in self.members:
            member.due = time.monotonic() + self.between(self.pace.life)
        while self.kills < self.wanted and time.monotonic() < deadline and not self.trouble.found.is_set():
            for member in self.members:
                self.step(member)
            time.sleep(0.005)

    def step(self, member):
        starting = member.state == "starting"
        self.watch(member)
        now = time.monotonic()
        if starting and member.state == "up":
            self.start_seconds.append(now - member.launched)
            member.doomed = False
            member.due = now + self.between(self.pace.life)
        if now < member.due:
            return
        if member.state == "down":
            member.launch()
            member.doomed = self.chance.random() < self.pace.kill_while_starting
            member.due = now + (self.chance.random() if member.doomed else START_SECONDS)
        elif member.state == "starting":
            if not member.doomed:
                self.trouble.report("liveness", f"{member.name} is not ready {START_SECONDS} s after its start; threads: {member.threads()}", members=[member])
                return
            self.kills_while_starting += 1
            self.kill(member, "killed while it started")
        elif member.state == "frozen":
            if self.chance.random() < 0.15:
                self.kill(member, "killed while frozen")
            else:
                member.thaw()
                self.trouble.event(member.name, "goes on")
                member.due = now + self.between(self.pace.life)
        elif member.state == "up":
            self.blow(member, now)

    def blow(self, member, now):
        up = [m for m in self.members if m.role == "writer" and m.state == "up"]
        if up == [member] and self.chance.random() < 0.9:
            # The last writer that serves is mostly spared: dead clusters take no writes to test.
            member.due = now + self.between(self.pace.life)
            return
        draw = self.chance.random()
        if draw < self.pace.freeze:
            member.freeze()
            self.freezes += 1
            self.trouble.event(member.name, "frozen")
            member.due = now + self.between(self.pace.frozen)
        elif draw < self.pace.freeze + self.pace.stop:
            self.stops += 1
            self.trouble.event(member.name, "stopped (SIGTERM)")
            member.node.process.send_signal(signal.SIGTERM)
            member.state = "stopping"
            member.due = now + harness.STOP_SECONDS
        else:
            self.kill(member, "killed")

    def kill(self, member, what):
        member.kill()
        self.kills += 1
        self.trouble.event(member.name, what)
        member.due = time.monotonic() + self.between(self.pace.down)

    def watch(self, member):
        """Notices ends that nobody asked for."""
        before = member.state
        code = member.look()
        if code is None:
            if before == "stopping" and time.monotonic() > member.due:
                text = f"{member.name} still runs {harness.STOP_SECONDS} s after SIGTERM; threads: {member.threads()}"
                self.trouble.report("liveness", text, members=[member])
                member.kill()
            return
        member.due = time.monotonic() + self.between(self.pace.down)
        if before == "stopping" and code == 0:
            return
        if before == "starting" and self.may_fail_to_start and code not in HOPELESS and code > 0:
            self.failed_starts += 1
            self.trouble.event(member.name, f"did not start: exit code {code}")
            return
        self.trouble.report("a node stays up", f"{member.name} ended by itself while {before}, exit code {code}", members=[member])

    def heal(self):
        """Everybody up again."""
        deadline = time.monotonic() + 2 * START_SECONDS
        for member in self.members:
            if member.state == "frozen":
                member.thaw()
        while any(member.state != "up" for member in self.members):
            for member in self.members:
                if member.state != "up":
                    self.watch(member)
                if member.state == "down":
                    member.launch()
            late = [member for member in self.members if member.state != "up"]
            if late and time.monotonic() > deadline:
                names = ", ".join(f"{member.name} ({member.state})" for member in late)
                self.trouble.report("liveness", f"not up {2 * START_SECONDS} s after the last blow: {names}", members=late)
                return
            time.sleep(0.02)
        self.trouble.event("driver", "all nodes are up, no more blows")

    def between(self, bounds):
        low, high = bounds
        return low + (high - low) * self.chance.random() ** 2


def replicas_exist():
    """Whether the program under test knows followers."""
    return "--role" in harness.run("serve", "--help").stdout


def follows_store():
    return "--follow" in harness.run("serve", "--help").stdout
