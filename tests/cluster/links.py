"""Links that can be broken: a TCP proxy on loopback in front of one port.

Promises: bytes that pass are unchanged and in order. What a broken link held back is passed on when it is healed, late, as
retransmission does it; nothing is made up. Nothing is listened to but loopback, and `close` ends every connection.
"""

import asyncio
import collections
import contextlib
import socket
import struct

from cluster.served import Served

UP, DOWN = "up", "down"
CHUNK = 64 * 1024
# A sender whose bytes are held back is stopped by its window at some point; so here.
HELD_MAX = 64


class Link(Served):
    """Listens on `port`, passes on to `target`, a port on loopback that may be set later.

    `up` is the direction from those who connect to the target, `down` that of the answers.
    """

    def __init__(self, target=None):
        super().__init__("link")
        self.target = target
        # Connections that were accepted, and bytes that were passed on.
        self.accepted = 0
        self.passed = collections.Counter()
        self._cut = False
        self._hung = set()
        self._delay = 0.0
        self._writers = set()

    @property
    def url(self):
        return f"grpc://127.0.0.1:{self.port}"

    # breaking and healing; each takes effect before it returns

    def cut(self):
        """Resets all connections, and each new one at once."""
        self._do(self._set(cut=True))

    def hang(self, *directions):
        """Takes bytes and passes none on, in the given directions or in both. Connections stay open, new ones are accepted."""
        self._do(self._set(hung=set(directions or (UP, DOWN))))

    def delay(self, seconds):
        """Every piece of data takes so long, in both directions."""
        self._do(self._set(delay=seconds))

    def heal(self):
        """Passes on what was held back, and everything from now on."""
        self._do(self._set())

    async def _set(self, cut=False, hung=(), delay=0.0):
        self._cut, self._hung, self._delay = cut, set(hung), delay
        if cut:
            for writer in list(self._writers):
                _reset(writer)
        async with self._changed:
            self._changed.notify_all()

    # listening

    async def _listen(self):
        self._changed = asyncio.Condition()
        return await asyncio.start_server(self._serve, "127.0.0.1", 0)

    # passing on

    async def _serve(self, reader, writer):
        self.accepted += 1
        if self._cut or self.target is None:
            _reset(writer)
            return
        mine = {writer}
        self._writers.add(writer)
        try:
            # Whoever connects to a link that hangs is accepted by it, and by nobody behind it.
            await self._passable(UP)
            far_reader, far_writer = await asyncio.open_connection("127.0.0.1", self.target)
            mine.add(far_writer)
            self._writers.add(far_writer)
            await asyncio.gather(self._pump(UP, reader, far_writer), self._pump(DOWN, far_reader, writer))
        except (OSError, asyncio.CancelledError):
            pass
        finally:
            self._writers -= mine
            for each in mine:
                _reset(each)

    async def _passable(self, direction):
        async with self._changed:
            await self._changed.wait_for(lambda: direction not in self._hung)

    async def _pump(self, direction, reader, writer):
        """Takes what comes at once, and passes it on when the link lets it."""
        held = asyncio.Queue(HELD_MAX)

        async def take():
            while data := await reader.read(CHUNK):
                await held.put((asyncio.get_running_loop().time() + self._delay, data))
            await held.put((0, b""))

        async def give():
            while True:
                due, data = await held.get()
                await asyncio.sleep(due - asyncio.get_running_loop().time())
                await self._passable(direction)
                if not data:
                    # The other direction may have more to say.
                    with contextlib.suppress(OSError, RuntimeError):
                        writer.write_eof()
                    return
                writer.write(data)
                self.passed[direction] += len(data)
                await writer.drain()

        await asyncio.gather(take(), give())


def _reset(writer):
    """Ends a connection at once and without a farewell."""
    with contextlib.suppress(OSError, AttributeError):
        writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    writer.transport.abort()
