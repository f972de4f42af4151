"""Which address is in use, and when a call is tried again, where, and for how long.

All calls of a connection share one `Links`. Each call has a `Tries`, which knows no Flight: what dials and what waits is
given to it.
"""

from __future__ import annotations

import random
import re
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Generic, Protocol, TypeVar

from tandemdb.errors import Failure, InvalidInput, NotWriter, OutcomeUnknown, TandemError, Unavailable

# The wait after all addresses were tried in vain: doubled each time, and a random part of it taken off. A fail-over takes
# a few seconds, and whoever waits for it should not sleep on when it is over.
PAUSE_MIN_SECONDS = 0.05
PAUSE_MAX_SECONDS = 0.5
# A writer that nodes named is remembered, but not any number of them.
ADDRESSES_MAX = 64

# What another node, or the same one later, may do better.
AGAIN: tuple[type[TandemError], ...] = (Unavailable, NotWriter, OutcomeUnknown)


@dataclass(frozen=True)
class Address:
    """Where a node listens: `grpc://host:port`, `grpc+tls://host:port`, or a bare `host:port`."""

    authority: str
    tls: bool

    @property
    def url(self) -> str:
        return f"grpc{'+tls' if self.tls else ''}://{self.authority}"

    @property
    def location(self) -> str:
        """As Flight spells it."""
        return f"grpc+{'tls' if self.tls else 'tcp'}://{self.authority}"


def addresses(urls: str | Sequence[str]) -> list[Address]:
    """Addresses separated by commas, or a list of them; at least one, each once."""
    found: list[Address] = []
    listed = [urls] if isinstance(urls, str) else urls
    if not isinstance(listed, Sequence) or not all(isinstance(url, str) for url in listed):
        raise InvalidInput(f"{urls!r} is no address: write grpc://host:port, several by commas")
    for url in (part.strip() for text in listed for part in text.split(",")):
        if not url:
            continue
        scheme, _, rest = url.rpartition("://")
        authority = rest.rstrip("/").lower()
        if scheme not in ("", "grpc", "grpc+tcp", "http", "grpc+tls", "https"):
            raise InvalidInput(f"the address {url!r} has the unknown scheme {scheme!r}: write grpc://host:port or grpc+tls://host:port")
        if not authority or any(c in authority for c in "/ @?"):
            raise InvalidInput(f"the address {url!r} is not of the form grpc://host:port")
        port = re.fullmatch(r"(?:\[.*\]|[^:]*)(?::(.*))?", authority)
        if port is None or (port[1] is not None and not (port[1].isdecimal() and 0 < int(port[1]) < 1 << 16)):
            raise InvalidInput(f"the address {url!r} has a port that is no number from 1 to 65535")
        # Of TLS there is a usual one.
        if port[1] is None and scheme not in ("grpc+tls", "https"):
            raise InvalidInput(f"the address {url!r} names no port: write grpc://{authority}:8815, if the node listens there")
        address = Address(authority, scheme in ("grpc+tls", "https"))
        if address not in found:
            found.append(address)
    if not found:
        raise InvalidInput("no address was given: write grpc://host:port")
    return found


class Closable(Protocol):
    """One connection."""

    @property
    def address(self) -> Address: ...

    def close(self) -> None: ...


L = TypeVar("L", bound=Closable)


class Links(Generic[L]):
    """The connection in use, and which address comes next when it is lost. Threads may share it."""

    def __init__(self, known: list[Address], dial: Callable[[Address], L]) -> None:
        self._lock = threading.Lock()
        self._known = list(known)
        self._dial = dial
        self._next = 0
        self._link: L | None = None
        self._closed = False

    def __len__(self) -> int:
        return len(self._known)

    def __str__(self) -> str:
        return ",".join(address.url for address in self._known)

    def link(self) -> L:
        """The connection in use, else one to the next address, which is not tried before the first call."""
        with self._lock:
            if self._closed:
                raise InvalidInput("the connection was closed: connect again")
            if self._link is None:
                self._link = self._dial(self._known[self._next])
            return self._link

    def leave(self, link: L, writers: str | None = None) -> None:
        """Leaves a connection for the first of `writers`, which are remembered, else for the next address. The same
        loss, seen by several calls at once, is acted on once."""
        with self._lock:
            if link is not self._link:
                return
            # Calls of other threads may be under way over it: it is closed when the last of them lets go of it.
            self._link = None
            here = self._known[self._next]
            self._next = (self._next + 1) % len(self._known)
            for address in reversed(_named(writers)):
                if address not in self._known:
                    if len(self._known) >= ADDRESSES_MAX:
                        continue
                    self._known.append(address)
                # A node that names itself and refuses is no better asked again at once.
                if address != here:
                    self._next = self._known.index(address)

    def close(self) -> None:
        """Closes what is open. Calls that follow are refused."""
        with self._lock:
            self._closed = True
            link, self._link = self._link, None
        if link is not None:
            link.close()


def _named(writers: str | None) -> list[Address]:
    try:
        return addresses(writers) if writers else []
    except InvalidInput:
        # A name that is no address is the server's mistake.
        return []


class Tries(Generic[L]):
    """The tries of one call. A call that goes on, such as a change stream, begins anew with each success.

    `again` are the errors that another try may mend. With `lost_again` so is every try that nobody knows the outcome of:
    for writes, which their token makes safe to repeat. A query that took too long would only take as long again.
    """

    def __init__(
        self,
        links: Links[L],
        retry_for: float,
        again: tuple[type[TandemError], ...] = AGAIN,
        lost_again: bool = False,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
        chance: Callable[[], float] = random.random,
    ) -> None:
        self._links = links
        self._retry_for = retry_for
        self._again = again
        self._lost_again = lost_again
        self._clock = clock
        self._sleep = sleep
        self._chance = chance
        #: A failed try may have been carried out all the same.
        self.maybe_done = False
        #: How often the call was begun.
        self.count = 0
        self.succeeded()

    def succeeded(self) -> None:
        """The call goes on: what was in the way is over."""
        self._since: float | None = None
        self._failures = self._hops = self._rounds = 0
        self._pause = 0.0

    def link(self) -> L:
        """The connection for the next try, after the wait that is due."""
        if self._pause:
            self._sleep(self._pause)
            self._pause = 0.0
        self.count += 1
        return self._links.link()

    def failed(self, link: L, failure: Failure) -> None:
        """Decides on a failed try: returns if there is to be another one, raises its error if none could mend it or the
        time is over."""
        self.maybe_done |= failure.lost
        error = failure.error
        if type(error) not in self._again and not (failure.lost and self._lost_again):
            raise error from None
        self._links.leave(link, error.writer if isinstance(error, NotWriter) else None)
        now = self._clock()
        since = self._since = now if self._since is None else self._since
        self._failures += 1
        self._hops += 1
        if self._hops >= len(self._links):
            self._hops = 0
            self._pause = self._next_pause()
        if now - since + self._pause < self._retry_for:
            return
        if self._failures == 1:
            raise error from None
        raise error.about(f"given up after {self._failures} tries in {now - since:.1f} s") from None

    def _next_pause(self) -> float:
        whole: float = min(PAUSE_MIN_SECONDS * 2.0 ** min(self._rounds, 16), PAUSE_MAX_SECONDS)
        self._rounds += 1
        return whole / 2 * (1 + self._chance())
