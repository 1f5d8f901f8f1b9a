"""``upcall campaigns``: campaigns and devices as the callbacks tell them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

from upcall.cli.moments import parse_duration, words_of_micros
from upcall.cli.output import MOST, JsonOption, StoreOption, emit, line, log, table, visible
from upcall.cli.selecting import now_micros

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from upcall.inbox import CampaignRecord, DeviceRecord

__all__ = ["app"]

app: typer.Typer = typer.Typer(no_args_is_help=True, help="Look at campaigns and devices as the callbacks tell them.")

SilentOption = Annotated[
    str,
    typer.Option("--silent-after", metavar="TIME", help="A device not final and not heard of for so long is silent."),
]
_DAY: Final = "24h"


@app.command("list")
def list_(
    *,
    store: StoreOption = None,
    limit: Annotated[int, typer.Option(min=0, max=MOST, help="The so many last heard of; 0 for all.")] = 20,
    silent_after: SilentOption = _DAY,
    json: JsonOption = False,
) -> None:
    """List campaigns in the order of their last callback, with how many of their devices are not final yet."""
    from upcall.cli.reading import reading

    heard_since = now_micros() - parse_duration(silent_after, option="--silent-after")
    with reading(store) as inbox:
        records = inbox.campaigns(limit=limit)
    if json:
        for record in records:
            emit(_campaign_document(record, heard_since))
        return
    table(
        ("CAMPAIGN", "ACCOUNT", "STATUS", "LAST HEARD", "CALLBACKS", "OPEN", "DEVICES"),
        [_campaign_row(record, heard_since) for record in records],
    )
    if not records:
        log("upcall: no callback has named a campaign yet.")


@app.command(epilog="Such as: upcall campaigns show C-1 --silent-after 6h")
def show(
    campaign_id: Annotated[str, typer.Argument(metavar="ID", help="The campaign's id.")],
    *,
    store: StoreOption = None,
    silent_after: SilentOption = _DAY,
    json: JsonOption = False,
) -> None:
    """Show one campaign and the state of each of its devices: which ones contradict themselves, which are silent."""
    from upcall.cli.reading import reading
    from upcall.errors import UpcallError

    now = now_micros()
    heard_since = now - parse_duration(silent_after, option="--silent-after")
    with reading(store) as inbox:
        found = inbox.campaign(campaign_id)
        url = inbox.url
    if found is None:
        raise UpcallError(f"no callback in {url} names campaign {campaign_id}.", hint="Try: upcall campaigns list")
    campaign, devices = found
    silent = {device.device_id for device in devices if _is_silent(device, heard_since)}
    if json:
        emit(_details(campaign, devices, silent))
        return
    _print_head(campaign, devices, silent)
    line("")
    table(
        ("DEVICE", "STATUS", "REASON", "UPDATED", "LAST HEARD", "LAST WORD", "NOTE"),
        [_device_row(device, now, silent) for device in devices],
    )


def _open(devices: dict[str, int]) -> int:
    """Count the devices whose state is not final."""
    from upcall.thingspace import is_final_device

    return sum(count for status, count in devices.items() if not is_final_device(status))


def _silent_count(record: CampaignRecord, heard_since: int) -> int | None:
    """Count the silent devices where that takes no look at each of them: all that are open, or nobody knows."""
    unfinished = _open(record.devices)
    return unfinished if not unfinished or record.last_at < heard_since else None


def _is_silent(device: DeviceRecord, heard_since: int) -> bool:
    from upcall.thingspace import is_final_device

    return not is_final_device(device.status or "") and _heard_at(device) < heard_since


def _heard_at(device: DeviceRecord) -> int:
    return device.last_at or device.updated_at  # a store of an older Upcall's did not keep the former


def _campaign_document(record: CampaignRecord, heard_since: int) -> dict[str, Any]:
    from upcall.thingspace import text_of_micros

    return {
        "campaign_id": record.campaign_id,
        "account": record.account,
        "name": record.name,
        "status": record.status,
        "first_at": text_of_micros(record.first_at),
        "last_at": text_of_micros(record.last_at),
        "callbacks": record.callbacks,
        "devices": record.devices,
        "open": _open(record.devices),
        "silent": _silent_count(record, heard_since),
        "contradiction": record.contradiction,
        "contradicting": record.contradicting,
    }


def _campaign_row(record: CampaignRecord, heard_since: int) -> tuple[str, ...]:
    from upcall.thingspace import text_of_micros

    silent = _silent_count(record, heard_since)
    return (
        record.campaign_id,
        record.account or "-",
        _with_contradiction(record.status, record.contradiction),
        text_of_micros(record.last_at),
        str(record.callbacks),
        f"{_open(record.devices)}{' (silent)' if silent else ''}",
        _counts(record.devices) + _contradicting(record.contradicting),
    )


def _details(campaign: CampaignRecord, devices: Sequence[DeviceRecord], silent: set[str]) -> dict[str, Any]:
    return {
        "campaign_id": campaign.campaign_id,
        "account": campaign.account,
        "name": campaign.name,
        "status": campaign.status,
        "devices": [_device_document(device) for device in devices],
        "silent": sorted(silent),
        "contradiction": campaign.contradiction,
    }


def _device_document(device: DeviceRecord) -> dict[str, Any]:
    from upcall.thingspace import text_of_micros

    return {
        "device_id": device.device_id,
        "status": device.status,
        "reason": device.reason,
        "updated_at": text_of_micros(device.updated_at),
        "first_at": text_of_micros(device.first_at) if device.first_at else None,
        "first_status": device.first_status,
        "last_at": text_of_micros(device.last_at) if device.last_at else None,
        "last_status": device.last_status,
        "contradiction": device.contradiction,
    }


def _print_head(campaign: CampaignRecord, devices: Sequence[DeviceRecord], silent: set[str]) -> None:
    from upcall.thingspace import text_of_micros

    contradicting = sum(device.contradiction is not None for device in devices)
    for text in (
        f"campaign  {campaign.campaign_id}  {campaign.name or ''}".rstrip(),
        f"account   {campaign.account or '-'}",
        f"status    {_with_contradiction(campaign.status, campaign.contradiction)}",
        f"heard     {text_of_micros(campaign.first_at)} to {text_of_micros(campaign.last_at)}",
        f"devices   {_counts(campaign.devices)}",
        f"silent    {len(silent)}",
        *([f"          {contradicting} said two final states that do not agree"] if contradicting else ()),
    ):
        line(visible(text))


def _device_row(device: DeviceRecord, now: int, silent: set[str]) -> tuple[str, ...]:
    from upcall.thingspace import text_of_micros

    return (
        device.device_id,
        device.status or "-",
        device.reason or "-",
        text_of_micros(device.updated_at),
        text_of_micros(_heard_at(device)),
        device.last_status or "-",
        "; ".join(_notes(device, now, silent)),
    )


def _notes(device: DeviceRecord, now: int, silent: set[str]) -> Iterable[str]:
    if device.contradiction:
        yield f"CONTRADICTION: also said {device.contradiction}"
    if device.device_id in silent:
        yield f"SILENT for {words_of_micros(now - _heard_at(device))}"


def _with_contradiction(status: str | None, contradiction: str | None) -> str:
    return f"{status or '-'}{f' (CONTRADICTION: also said {contradiction})' if contradiction else ''}"


def _contradicting(count: int) -> str:
    if not count:
        return ""
    return f" ({count} {'CONTRADICTS itself' if count == 1 else 'CONTRADICT themselves'})"


def _counts(devices: dict[str, int]) -> str:
    return ", ".join(f"{count} {status or 'unknown'}" for status, count in devices.items()) or "-"
