"""``upcall dead``: work that was given up."""

from __future__ import annotations

from typing import Annotated

import typer

from upcall.cli.output import MOST, JsonOption, StoreOption, emit, log, table

__all__ = ["app"]

app: typer.Typer = typer.Typer(no_args_is_help=True, help="Look at work that was given up.")


@app.command("list")
def list_(
    *,
    store: StoreOption = None,
    limit: Annotated[int, typer.Option(min=0, max=MOST, help="The newest so many; 0 for all.")] = 20,
    json: JsonOption = False,
) -> None:
    """List the dead letters: what a handler failed on as often as it was allowed to."""
    from upcall.cli.reading import reading
    from upcall.thingspace import text_of_micros

    with reading(store) as inbox:
        records = inbox.dead(limit=limit)
    if json:
        for record in records:
            emit(
                {
                    "id": record.callback_id,
                    "subscriber": record.subscriber,
                    "device_id": record.device_id or None,
                    "attempts": record.attempts,
                    "dead_at": text_of_micros(record.finished_at),
                    "kind": record.kind,
                    "account": record.account,
                    "campaign_id": record.campaign_id,
                    "error": record.error,
                }
            )
        return
    table(
        ("CALLBACK", "HANDLER", "DEVICE", "ATTEMPTS", "GIVEN UP", "ERROR"),
        [
            (
                str(record.callback_id),
                record.subscriber,
                record.device_id or "-",
                str(record.attempts),
                text_of_micros(record.finished_at),
                (record.error or "").strip().splitlines()[-1] if record.error else "-",
            )
            for record in records
        ],
    )
    if not records:
        log("upcall: no dead letters.")
