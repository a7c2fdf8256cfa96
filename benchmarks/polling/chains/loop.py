"""An asyncio loop without a queue: the cost of the calls and the updates alone.

It waits until there are rows, and then schedules its jobs in memory.
"""

from __future__ import annotations

import asyncio
import json
from datetime import UTC, datetime, timedelta

import psycopg

from benchmarks.polling.http_client import Client

from . import body

_CONNECTIONS = 4


class Loop:
    """Checks each job when it is due, at most `PLACES` at once."""

    def __init__(self) -> None:
        self._client = Client(body.BASE_URL)
        self._places = asyncio.Semaphore(body.PLACES)
        self._connections: asyncio.Queue[psycopg.AsyncConnection] = asyncio.Queue()
        self._tasks: set[asyncio.Task[None]] = set()

    async def run(self) -> None:
        for _connection in range(_CONNECTIONS):
            connect = psycopg.AsyncConnection.connect(body.DATABASE_URL, autocommit=True)
            self._connections.put_nowait(await connect)
        while not (jobs := list(body.jobs())):
            await asyncio.sleep(0.5)
        for pk, task_id, wait in jobs:
            self._schedule(wait, pk, task_id)
        await asyncio.Event().wait()

    def _schedule(self, wait: float, pk: int, task_id: str) -> None:
        asyncio.get_running_loop().call_later(wait, self._start, pk, task_id)

    def _start(self, pk: int, task_id: str) -> None:
        task = asyncio.create_task(self._check(pk, task_id))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _check(self, pk: int, task_id: str) -> None:
        status = "processing"
        async with self._places:
            try:
                path = f"/v1/result/{task_id}"
                code, content = await self._client.get(path, timeout=body.TIMEOUT)
                if code == 200:
                    status = json.loads(content)["status"]
            except OSError:  # TimeoutError is one.
                pass
        wait, now = body.next_wait(), datetime.now(UTC)
        connection = await self._connections.get()
        try:
            await connection.execute(body.UPDATE, (status, now, now + timedelta(seconds=wait), pk))
        finally:
            self._connections.put_nowait(connection)
        if status == "processing":
            self._schedule(wait, pk, task_id)


if __name__ == "__main__":
    asyncio.run(Loop().run())
