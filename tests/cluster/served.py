"""A proxy's life: an event loop in a thread of its own, beside the tests."""

import asyncio
import threading


class Served:
    """Runs what `_listen` starts, an asyncio server, from `start` to `close`; both return when it is done."""

    def __init__(self, name):
        self.port = None
        self._server = None
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True, name=name)

    async def _listen(self):
        raise NotImplementedError

    def _do(self, what):
        return asyncio.run_coroutine_threadsafe(what, self._loop).result(10)

    def start(self):
        self._thread.start()
        self._server = self._do(self._listen())
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    def close(self):
        async def end():
            self._server.close()
            # Accepted connections become tasks a moment later.
            while tasks := asyncio.all_tasks() - {asyncio.current_task()}:
                for task in tasks:
                    task.cancel()
                await asyncio.gather(*tasks, return_exceptions=True)
                await asyncio.sleep(0.01)
            self._loop.stop()

        asyncio.run_coroutine_threadsafe(end(), self._loop)
        self._thread.join(10)
        self._loop.close()

    def __enter__(self):
        return self.start()

    def __exit__(self, *_):
        self.close()
