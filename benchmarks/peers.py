"""Serve one of the receivers that ours is measured beside, on uvicorn with the settings that ours has.

``python peers.py typical|bare`` picks a free port and prints ``ready URL``.
"""

from __future__ import annotations

import os
import socket
import sys
from typing import Any

import uvicorn

_ANSWER = b'{"received":true}'
_HEADERS = [(b"content-type", b"application/json"), (b"content-length", str(len(_ANSWER)).encode())]


async def bare(scope: Any, receive: Any, send: Any) -> None:
    """Read the body, keep nothing, answer: what the server itself costs."""
    if scope["type"] != "http":
        raise RuntimeError("no lifespan here")
    chunks = []
    more = True
    while more:
        message = await receive()
        chunks.append(message.get("body", b""))
        more = message.get("more_body", False)
    await send({"type": "http.response.start", "status": 200, "headers": _HEADERS})
    await send({"type": "http.response.body", "body": _ANSWER})


class _Server(uvicorn.Server):
    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets=sockets)
        assert sockets is not None
        port = sockets[0].getsockname()[1]
        print(f"ready http://127.0.0.1:{port}/callbacks/{os.environ['BENCHMARK_TOKEN']}", flush=True)


def main() -> None:
    listening = socket.create_server(("127.0.0.1", 0), backlog=2048)
    config = uvicorn.Config(
        bare if sys.argv[1] == "bare" else "typical:app",
        http="httptools",
        loop="uvloop",
        lifespan="off",
        ws="none",
        access_log=False,
        log_config=None,
        server_header=False,
        date_header=False,
        proxy_headers=False,
        timeout_keep_alive=75,
        backlog=2048,
    )
    _Server(config).run(sockets=[listening])


if __name__ == "__main__":
    main()
