"""``upcall work``: run handlers over a store, beside a listener."""

from __future__ import annotations

import contextlib
import sys
from typing import TYPE_CHECKING, Annotated

import typer

from upcall.cli.moments import words_of_count
from upcall.cli.output import JsonOption, StoreOption, emit, log
from upcall.cli.subscriber_options import ExecOption, ForwardOption, ForwardRawOption, JsonlOption, subscribers

if TYPE_CHECKING:
    from upcall.dispatch import Worker

__all__ = ["work"]


def work(
    module: Annotated[
        str | None,
        typer.Argument(
            metavar="MODULE:APP",
            help="The handlers, such as mymodule:app. It may be left out where a subscriber option is given.",
        ),
    ] = None,
    *,
    store: StoreOption = None,
    concurrency: Annotated[
        int, typer.Option(min=1, max=1000, help="How many handlers run at once; each may always run one.")
    ] = 16,
    until_idle: Annotated[
        bool, typer.Option("--until-idle", help="End once nothing is due, instead of waiting for more.")
    ] = False,
    forward: ForwardOption = None,
    forward_raw: ForwardRawOption = None,
    execute: ExecOption = None,
    jsonl: JsonlOption = None,
    json: JsonOption = False,
) -> None:
    """Hand stored callbacks to a module's handlers and to subscribers, at least once each, until stopped."""
    import logging

    from upcall.app import load_app, run_on_fast_loop
    from upcall.cli.logs import configure_logging
    from upcall.dispatch import Worker
    from upcall.errors import SettingsError
    from upcall.inbox import open_inbox
    from upcall.settings import default_store

    configure_logging(logging.INFO)
    stopped_by: list[int] = []
    # What a module or its handlers print goes to stderr, as with `upcall listen`.
    with contextlib.redirect_stdout(sys.stderr):
        handlers = load_app(module).handlers if module else []
        without_code = subscribers(forward=forward, forward_raw=forward_raw, execute=execute, jsonl=jsonl)
        if not module and not without_code:
            raise SettingsError(
                "there is nothing to hand callbacks to.",
                hint="Name a module:app, or give --forward, --forward-raw, --exec or --jsonl.",
            )
        with open_inbox(store or default_store(), create=True, upgrade=True, relaxed=True) as inbox:
            worker = Worker(inbox, [*handlers, *without_code], concurrency=concurrency)
            of_module = [f"{words_of_count(len(handlers), 'handler')} of {module}"] if module else []
            options = [words_of_count(len(without_code), "subscriber option")] if without_code else []
            log(f"upcall: working on {inbox.url}: {' and '.join(of_module + options)}")
            run_on_fast_loop(worker.drain() if until_idle else _until_stopped(worker, stopped_by))
    _report(worker, json=json)
    if _interrupted(stopped_by):
        raise KeyboardInterrupt


async def _until_stopped(worker: Worker, stopped_by: list[int]) -> None:
    import asyncio
    import signal

    stop = asyncio.Event()

    def stop_by(number: int) -> None:
        stopped_by.append(number)
        stop.set()

    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop_by, number)
    await worker.run(stop)


def _report(worker: Worker, *, json: bool) -> None:
    stats = worker.stats
    log(f"upcall: done {stats.done}, failed attempts {stats.failed}, dead {stats.dead}")
    if json:
        emit({"done": stats.done, "failed": stats.failed, "dead": stats.dead})


def _interrupted(stopped_by: list[int]) -> bool:
    import signal

    return signal.SIGINT in stopped_by
