"""``upcall events``: look at stored callbacks."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Annotated, Any

import typer

from upcall.cli.output import MOST, JsonOption, StoreOption, emit, line, log, table, visible

if TYPE_CHECKING:
    from upcall.inbox import CallbackRecord, Inbox

__all__ = ["app"]

app: typer.Typer = typer.Typer(no_args_is_help=True, help="Look at stored callbacks.")

AccountFilter = Annotated[str | None, typer.Option("--account", help="Only this account's.")]
KindFilter = Annotated[str | None, typer.Option("--kind", help="Only this kind, such as upgradeProgress.")]
CampaignFilter = Annotated[str | None, typer.Option("--campaign", help="Only this campaign's.")]

_HEADERS = ("ID", "RECEIVED", "ACCOUNT", "KIND", "CAMPAIGN", "DELIVERIES", "STATE", "TRUST", "DUPLICATE")
POLL_SECONDS = 0.2


@app.command("list")
def list_(
    *,
    store: StoreOption = None,
    limit: Annotated[int, typer.Option(min=0, max=MOST, help="The newest so many; 0 for all.")] = 20,
    account: AccountFilter = None,
    kind: KindFilter = None,
    campaign: CampaignFilter = None,
    json: JsonOption = False,
) -> None:
    """List the newest callbacks, oldest first, those in quarantine too."""
    from upcall.cli.reading import reading
    from upcall.thingspace import normalize_kind

    with reading(store) as inbox:
        records = inbox.callbacks(
            limit=limit, account=account, kind=normalize_kind(kind) if kind else None, campaign_id=campaign
        )
    if json:
        for record in records:
            emit(_document(record))
        return
    table(_HEADERS, [_row(record) for record in records])
    if not records:
        log("upcall: no callbacks match.")


@app.command()
def show(
    callback_id: Annotated[int, typer.Argument(metavar="ID", max=MOST, help="The callback's number.")],
    *,
    store: StoreOption = None,
    json: JsonOption = False,
) -> None:
    """Show one callback: what it says, each delivery, what the handlers did, and its body."""
    from upcall.cli.reading import reading
    from upcall.errors import UpcallError

    with reading(store) as inbox:
        record = inbox.callback(callback_id)
        if record is None:
            raise UpcallError(f"there is no callback {callback_id} in {inbox.url}.", hint="Try: upcall events list")
        document = _details(inbox, record)
    if json:
        emit(document)
        return
    _print_details(document)


@app.command()
def tail(
    *,
    store: StoreOption = None,
    limit: Annotated[int, typer.Option(min=0, max=MOST, help="Begin with the newest so many.")] = 10,
    account: AccountFilter = None,
    json: JsonOption = False,
) -> None:
    """Print callbacks as they arrive, until interrupted."""
    from upcall.cli.reading import catch_up, reading

    with reading(store) as inbox:
        newest = inbox.callbacks(limit=limit or 1, account=account)
        last = newest[-1].id if newest else 0
        for record in newest if limit else ():
            _print_one(record, json=json)
        log("upcall: waiting for callbacks… (Ctrl-C ends)")
        while True:
            catch_up(inbox)
            for record in inbox.callbacks(after=last, account=account):
                last = record.id
                _print_one(record, json=json)
            time.sleep(POLL_SECONDS)


def _print_one(record: CallbackRecord, *, json: bool) -> None:
    if json:
        emit(_document(record))
    else:
        line("  ".join(map(visible, _row(record))))


def _row(record: CallbackRecord) -> tuple[str, ...]:
    from upcall.thingspace import text_of_micros

    return (
        str(record.id),
        text_of_micros(record.received_at),
        record.account or "-",
        record.kind or "-",
        record.campaign_id or "-",
        str(record.deliveries),
        record.state,
        record.trust,
        record.duplicate,
    )


def _document(record: CallbackRecord) -> dict[str, Any]:
    from upcall.thingspace import text_of_micros

    return {
        "id": record.id,
        "received_at": text_of_micros(record.received_at),
        "account": record.account,
        "kind": record.kind,
        "campaign_id": record.campaign_id,
        "deliveries": record.deliveries,
        "state": record.state,
        "origin": record.origin,
        "trust": record.trust,
        "duplicate": record.duplicate,
        **_raw(record.body),
    }


def _raw(body: bytes | None) -> dict[str, str | None]:
    """Return the body as received, a V1 password aside; base64 where it is no UTF-8."""
    import base64

    from upcall.redact import blank_password

    if body is None:
        return {"raw": None}
    shown = blank_password(body)
    try:
        return {"raw": shown.decode("utf-8")}
    except UnicodeDecodeError:
        return {"raw_base64": base64.b64encode(shown).decode("ascii")}


def _details(inbox: Inbox, record: CallbackRecord) -> dict[str, Any]:
    from upcall.inbox import stored_event
    from upcall.thingspace import text_of_micros

    event = stored_event(record.id, record.received_at, record.account, record.body or b"")
    return {
        **_document(record),
        "evidence": record.evidence,
        "duplicate_of": record.duplicate_of,
        "key": event.key,
        "campaign_name": event.campaign_name,
        "campaign_status": event.campaign_status,
        "devices": [
            {"device_id": device.device_id, "status": device.status, "reason": device.reason}
            for device in event.devices
        ],
        "drift": list(event.drift),
        "received": [
            {
                "received_at": text_of_micros(delivery.received_at),
                "peer": delivery.peer,
                "token_id": delivery.token_id,
                "answer": delivery.answer,
            }
            for delivery in inbox.deliveries(record.id)
        ],
        "work": [
            {
                "subscriber": work.subscriber,
                "device_id": work.device_id or None,
                "state": work.state,
                "attempts": work.attempts,
                "error": work.error,
            }
            for work in inbox.work(record.id)
        ],
    }


def _print_details(document: dict[str, Any]) -> None:
    lists = ("devices", "drift", "received", "work")
    for name, value in document.items():
        if name not in lists and name not in {"raw", "raw_base64"} and value is not None:
            line(f"{name:16} {visible(str(value))}")
    for name in lists:
        for entry in document[name]:
            shown = (
                entry
                if isinstance(entry, str)
                else "  ".join(f"{key}={value}" for key, value in entry.items() if value is not None and key != "error")
            )
            line(f"{name:16} {visible(shown)}")
            if isinstance(entry, dict) and entry.get("error"):
                line(f"{'':16} {entry['error'].strip().splitlines()[-1]}")
    line("")
    line(document.get("raw") or document.get("raw_base64") or "")
