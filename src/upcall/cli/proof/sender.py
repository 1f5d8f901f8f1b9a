"""Traffic: distinct callbacks over keep-alive connections; what is not answered 200 is sent again, the same bytes."""

from __future__ import annotations

import array
import asyncio
import contextlib
import threading
import time
from collections import Counter, deque
from typing import TYPE_CHECKING, Final, Self, cast

import uvloop

from upcall.cli.proof.bodies import make
from upcall.cli.proof.children import wait_until
from upcall.errors import UpcallError

if TYPE_CHECKING:
    from collections.abc import Sequence
    from types import TracebackType

__all__ = ["ACKNOWLEDGED", "SENT", "Latencies", "Sender"]

SENT: Final = 1
ACKNOWLEDGED: Final = 2
ANSWER_SECONDS: Final = 10.0
RECONNECT_SECONDS: Final = 0.01
AGAIN_SECONDS: Final = 0.1
REQUESTS: Final = 50
"""How many requests a connection is used for, so that new ones are accepted all the time."""
_OK: Final = 200
_AHEAD_SECONDS: Final = 0.1
_GROWTH: Final = 65_536
_TURN_SECONDS: Final = 0.02
"""In which the sender's thread has seen what it was told."""


class Latencies:
    """Hold how long acknowledgements took.

    Args:
        seconds: Of each.
    """

    def __init__(self, seconds: Sequence[float]) -> None:
        self._ordered = sorted(seconds)

    def __len__(self) -> int:
        return len(self._ordered)

    def milliseconds(self, part: float) -> float:
        """Return what this part of them did not exceed; 0 where there are none."""
        if not self._ordered:
            return 0.0
        return 1000 * self._ordered[min(int(len(self._ordered) * part), len(self._ordered) - 1)]


class Sender:
    """Send from a thread of its own, until closed.

    Args:
        connections: How many at once.
    """

    def __init__(self, *, connections: int = 16) -> None:
        self._connections = connections
        self._port = 0
        self._path = ""
        self._rate: float | None = 0.0
        self._slot = 0.0
        self._next = 0
        self._again: deque[int] = deque()
        self._flying: set[int] = set()
        self._held = False
        self._closing = False
        self._took = array.array("f")
        self._thread = threading.Thread(target=self._run, name="upcall-proof-sender", daemon=True)
        self.states: bytearray = bytearray()
        self.acknowledged: int = 0
        self.unanswered: int = 0
        self.statuses: Counter[int] = Counter()

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._closing = True
        self._thread.join(ANSWER_SECONDS + 5)

    @property
    def sent(self) -> int:
        """Return how many distinct callbacks were sent."""
        return self._next

    def aim(self, port: int, path: str) -> None:
        """Say where to send, from now on."""
        self._port, self._path = port, path

    def flow(self, rate: float | None = None) -> None:
        """Send new callbacks, so many a second or, with None, as many as are answered."""
        self._held = False
        self._slot = time.monotonic()
        self._rate = rate

    def pause(self) -> None:
        """Send nothing new; what is not acknowledged goes on being sent again."""
        self._rate = 0.0

    def hold(self) -> list[int]:
        """Send nothing at all, wait for what is under way, and return the callbacks without acknowledgement."""
        self._held = True
        self.pause()
        time.sleep(_TURN_SECONDS)
        wait_until(lambda: not self._flying, "answers, or the ends of connections", seconds=ANSWER_SECONDS + 5)
        return sorted(set(self._again))

    def settle(self, seconds: float = 30.0) -> None:
        """Send nothing new, and wait until everything is acknowledged.

        Raises:
            UpcallError: It was not in time.
        """
        self._held = False
        self.pause()
        time.sleep(_TURN_SECONDS)
        wait_until(lambda: self.acknowledged == self._next, "acknowledgements", seconds=seconds)

    def reaches(self, count: int, seconds: float = 30.0) -> None:
        """Wait until so many more are acknowledged.

        Raises:
            UpcallError: They were not in time.
        """
        goal = self.acknowledged + count
        wait_until(lambda: self.acknowledged >= goal, f"{count} more acknowledgements", seconds=seconds)

    def take_serial(self) -> int:
        """Return a serial number to send by other means, while this sends nothing new; say so with `acknowledge`."""
        serial = self._next
        self._begin(serial)
        return serial

    def acknowledge(self, serial: int) -> None:
        """Count an acknowledgement."""
        if self.states[serial] != ACKNOWLEDGED:
            self.states[serial] = ACKNOWLEDGED
            self.acknowledged += 1

    def latencies(self, since: int = 0) -> Latencies:
        """Return how long acknowledgements took, those after the first so many."""
        return Latencies(self._took[since:])

    @property
    def timings(self) -> Sequence[float]:
        """Return how many seconds each acknowledgement took."""
        return self._took

    @property
    def measured(self) -> int:
        """Return how many acknowledgements were timed until now."""
        return len(self._took)

    def _run(self) -> None:
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            runner.run(self._send())

    async def _send(self) -> None:
        await asyncio.gather(*(self._work() for _ in range(self._connections)))

    async def _work(self) -> None:
        connection: _Connection | None = None
        while not self._closing:
            serial = self._take()
            if serial is None:
                await asyncio.sleep(0.002)
                continue
            await self._wait_for_slot()
            try:
                if connection is None or connection.is_lost:
                    connection = await self._connect()
                connection.requests += 1
                status = await self._post(connection, serial)
            except (OSError, TimeoutError):
                self.unanswered += 1
                if connection is not None:
                    connection.close()
                connection = None
                await asyncio.sleep(RECONNECT_SECONDS)
                self._retry(serial)
            else:
                await self._answered(serial, status)
                if connection.requests >= REQUESTS:
                    connection.close()
        if connection is not None:
            connection.close()

    def _take(self) -> int | None:
        if self._held:
            return None
        if self._again:
            serial = self._again[0]
            self._flying.add(serial)  # before it is taken from there: it is in one place at least, whoever looks
            self._again.popleft()
        elif self._rate == 0.0:
            return None
        else:
            serial = self._next
            self._flying.add(serial)
            self._begin(serial)
        return serial

    def _begin(self, serial: int) -> None:
        if serial >= len(self.states):
            self.states.extend(bytes(_GROWTH))
        self.states[serial] = SENT
        self._next = serial + 1

    async def _wait_for_slot(self) -> None:
        if not self._rate:
            return
        now = time.monotonic()
        slot = max(self._slot, now - _AHEAD_SECONDS)
        self._slot = slot + 1 / self._rate
        if slot > now:
            await asyncio.sleep(slot - now)

    async def _connect(self) -> _Connection:
        loop = asyncio.get_running_loop()
        async with asyncio.timeout(ANSWER_SECONDS):
            _, connection = await loop.create_connection(_Connection, "127.0.0.1", self._port)
        return connection

    async def _post(self, connection: _Connection, serial: int) -> int:
        body = make(serial)
        head = f"POST {self._path} HTTP/1.1\r\nHost: localhost\r\nContent-Length: {len(body)}\r\n\r\n"
        began = time.perf_counter()
        async with asyncio.timeout(ANSWER_SECONDS):
            status = await connection.request(head.encode() + body)
        if status == _OK:
            self._took.append(time.perf_counter() - began)
        return status

    async def _answered(self, serial: int, status: int) -> None:
        self.statuses[status] += 1
        if status == _OK:
            self.acknowledge(serial)
            self._flying.discard(serial)
        else:
            await asyncio.sleep(AGAIN_SECONDS)
            self._retry(serial)

    def _retry(self, serial: int) -> None:
        self._again.append(serial)
        self._flying.discard(serial)


class _Connection(asyncio.Protocol):
    """Send a request, wait for the whole answer, and so on."""

    def __init__(self) -> None:
        self.is_lost = False
        self.requests = 0
        self._answer: asyncio.Future[int] | None = None
        self._buffer = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)

    async def request(self, data: bytes) -> int:
        """Send a request and return its answer's status."""
        self._answer = asyncio.get_running_loop().create_future()
        self._transport.write(data)
        try:
            return await self._answer
        finally:
            self._answer = None

    def close(self) -> None:
        self.is_lost = True
        self._transport.abort()

    def data_received(self, data: bytes) -> None:
        answer = self._buffer + data if self._buffer else data
        head, mark, body = answer.partition(b"\r\n\r\n")
        if not mark or len(body) < _content_length(head):
            self._buffer = answer
            return
        self._buffer = b""
        if b"\r\nconnection: close" in head.lower():
            self.is_lost = True
        if self._answer is not None and not self._answer.done():
            self._answer.set_result(int(head[9:12]))

    def connection_lost(self, exc: Exception | None) -> None:
        self.is_lost = True
        if self._answer is not None and not self._answer.done():
            self._answer.set_exception(exc if isinstance(exc, OSError) else ConnectionResetError())


def _content_length(head: bytes) -> int:
    for line in head.lower().split(b"\r\n"):
        if line.startswith(b"content-length:"):
            with contextlib.suppress(ValueError):
                return int(line.partition(b":")[2])
    raise UpcallError("the listener answers without Content-Length.")
