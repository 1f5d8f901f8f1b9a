"""Send distinct callbacks over keep-alive connections for a while, and print what came back as one JSON object.

A process of its own, so that its work and the server's do not share an interpreter. `receive.py` starts it.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import time
from urllib.parse import urlsplit

import uvloop

BODY_BYTES = 905
_SERIAL_DIGITS = 16


def body_template(run: str) -> tuple[bytes, bytes]:
    """Return what stands before and after the serial number that makes each body distinct."""
    head = (
        '{"type":"upgradeProgress","accountName":"0000123456-00001","upgradeProgress":{"campaignId":"'
        f'{run}","campaignName":"Spring firmware","status":"CampaignStarted","deviceList":[{{"deviceId":"'
    )
    tail = '","status":"DownloadCompleted","resultReason":"%s","updatedTime":"2026-05-01T12:00:00Z"}]}}'
    padding = BODY_BYTES - len(head) - _SERIAL_DIGITS - len(tail) + len("%s")
    return head.encode(), (tail % ("x" * padding)).encode()


class Run:
    """Hold what the connections of one run share.

    Args:
        url: Where to send.
        name: Makes the bodies of this run differ from those of all others.
    """

    def __init__(self, url: str, name: str) -> None:
        parts = urlsplit(url)
        head, self.after = body_template(name)
        self.before = (
            f"POST {parts.path} HTTP/1.1\r\nHost: {parts.netloc}\r\nContent-Type: application/json\r\n"
            f"Content-Length: {BODY_BYTES}\r\n\r\n"
        ).encode() + head
        self.serial = 0
        self.stopping = False
        self.measuring = False
        self.latencies: list[float] = []
        self.statuses: dict[int, int] = {}
        self.lost_connections = 0

    def request(self) -> bytes:
        self.serial += 1
        return b"%b%016d%b" % (self.before, self.serial, self.after)


class Connection(asyncio.Protocol):
    """Send, wait for the whole answer, send again.

    Args:
        run: What this connection shares with the others.
    """

    def __init__(self, run: Run) -> None:
        self.run = run
        self.idle = asyncio.get_running_loop().create_future()
        self.buffer = b""
        self.started = 0.0

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        self.transport = transport
        self.send()

    def send(self) -> None:
        self.started = time.perf_counter()
        self.transport.write(self.run.request())

    def data_received(self, data: bytes) -> None:
        answer = self.buffer + data if self.buffer else data
        end = answer.find(b"\r\n\r\n")
        if end < 0 or len(answer) < end + 4 + _content_length(answer, end):
            self.buffer = answer
            return
        self.buffer = b""
        run = self.run
        status = int(answer[9:12])
        run.statuses[status] = run.statuses.get(status, 0) + 1
        if run.measuring and status == 200:
            run.latencies.append(time.perf_counter() - self.started)
        if run.stopping:
            self.idle.set_result(None)
        else:
            self.send()

    def connection_lost(self, _: Exception | None) -> None:
        if not self.idle.done():
            self.run.lost_connections += 1
            self.idle.set_result(None)


def _content_length(answer: bytes, end: int) -> int:
    head = answer[:end].lower()
    at = head.find(b"content-length:")
    if at < 0:
        raise SystemExit("the server answers without Content-Length")
    stop = head.find(b"\r\n", at)
    return int(head[at + 15 : stop if stop > 0 else end])


async def send_for(url: str, *, name: str, connections: int, seconds: float, warmup: float) -> dict[str, float]:
    """Send for a while over so many connections; each waits for its last answer before this returns."""
    run = Run(url, name)
    loop = asyncio.get_running_loop()
    parts = urlsplit(url)
    pairs = await asyncio.gather(
        *(loop.create_connection(lambda: Connection(run), parts.hostname, parts.port) for _ in range(connections))
    )
    await asyncio.sleep(warmup)
    run.measuring = True
    began, cpu = time.perf_counter(), time.process_time()
    await asyncio.sleep(seconds)
    run.measuring = False
    elapsed, busy = time.perf_counter() - began, time.process_time() - cpu
    run.stopping = True
    await asyncio.wait_for(asyncio.gather(*(connection.idle for _, connection in pairs)), 60)
    for transport, _ in pairs:
        transport.close()
    ordered = sorted(run.latencies)
    if not ordered:
        raise SystemExit(f"no request was answered 200: {run.statuses}")
    return {
        "requests_per_second": len(ordered) / elapsed,
        "p50_ms": 1000 * ordered[len(ordered) // 2],
        "p99_ms": 1000 * ordered[int(len(ordered) * 0.99)],
        "p999_ms": 1000 * ordered[int(len(ordered) * 0.999)],
        "longest_ms": 1000 * ordered[-1],
        "acknowledged": run.statuses.get(200, 0),
        "refused": sum(count for status, count in run.statuses.items() if status != 200),
        "lost_connections": run.lost_connections,
        "sender_cpu": busy / elapsed,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("url")
    parser.add_argument("--name", default=f"run-{os.getpid()}")
    parser.add_argument("--connections", type=int, default=64)
    parser.add_argument("--seconds", type=float, default=3.0)
    parser.add_argument("--warmup", type=float, default=0.5)
    options = vars(parser.parse_args())
    print(json.dumps(uvloop.run(send_for(options.pop("url"), **options))))


if __name__ == "__main__":
    main()
