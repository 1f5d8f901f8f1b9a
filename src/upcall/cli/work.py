"""``upcall work``: run handlers over a store, beside a listener."""

from __future__ import annotations

import contextlib
import sys
from typing import Annotated

import typer

from upcall.cli.output import JsonOption, StoreOption, emit, log

__all__ = ["work"]


def work(
    module: Annotated[str, typer.Argument(metavar="MODULE:APP", help="The handlers, such as mymodule:app.")],
    *,
    store: StoreOption = None,
    concurrency: Annotated[int, typer.Option(min=1, max=1000, help="How many handlers run at once.")] = 16,
    until_idle: Annotated[
        bool, typer.Option("--until-idle", help="End once nothing is due, instead of waiting for more.")
    ] = False,
    json: JsonOption = False,
) -> None:
    """Hand stored callbacks to the handlers of a module, at least once each, until stopped."""
    import asyncio
    import logging
    import signal

    from upcall.app import load_app
    from upcall.cli.logs import configure_logging
    from upcall.dispatch import Worker
    from upcall.inbox import open_inbox
    from upcall.settings import default_store

    configure_logging(logging.INFO)
    stopped_by: list[int] = []

    async def run(worker: Worker) -> None:
        if until_idle:
            await worker.drain()
            return
        stop = asyncio.Event()

        def stop_by(number: int) -> None:
            stopped_by.append(number)
            stop.set()

        for number in (signal.SIGTERM, signal.SIGINT):
            asyncio.get_running_loop().add_signal_handler(number, stop_by, number)
        await worker.run(stop)

    # What a module or its handlers print goes to stderr, as with `upcall listen`.
    with contextlib.redirect_stdout(sys.stderr):
        app = load_app(module)
        with open_inbox(store or default_store(), create=True) as inbox:
            worker = Worker(inbox, app.handlers, concurrency=concurrency)
            log(f"upcall: {len(app.handlers)} handlers of {module} work on {inbox.url}")
            asyncio.run(run(worker))
    stats = worker.stats
    log(f"upcall: done {stats.done}, failed attempts {stats.failed}, dead {stats.dead}")
    if json:
        emit({"done": stats.done, "failed": stats.failed, "dead": stats.dead})
    if signal.SIGINT in stopped_by:
        raise KeyboardInterrupt
