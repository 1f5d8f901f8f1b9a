"""``upcall campaigns``: campaigns and devices as the callbacks tell them."""

from __future__ import annotations

from typing import Annotated

import typer

from upcall.cli.output import MOST, JsonOption, StoreOption, emit, line, log, table, visible

__all__ = ["app"]

app: typer.Typer = typer.Typer(no_args_is_help=True, help="Look at campaigns and devices as the callbacks tell them.")


@app.command("list")
def list_(
    *,
    store: StoreOption = None,
    limit: Annotated[int, typer.Option(min=0, max=MOST, help="The so many last heard of; 0 for all.")] = 20,
    json: JsonOption = False,
) -> None:
    """List campaigns in the order of their last callback."""
    from upcall.cli.reading import reading
    from upcall.thingspace import text_of_micros

    with reading(store) as inbox:
        records = inbox.campaigns(limit=limit)
    if json:
        for record in records:
            emit(
                {
                    "campaign_id": record.campaign_id,
                    "account": record.account,
                    "name": record.name,
                    "status": record.status,
                    "first_at": text_of_micros(record.first_at),
                    "last_at": text_of_micros(record.last_at),
                    "callbacks": record.callbacks,
                    "devices": record.devices,
                }
            )
        return
    table(
        ("CAMPAIGN", "ACCOUNT", "STATUS", "LAST HEARD", "CALLBACKS", "DEVICES"),
        [
            (
                record.campaign_id,
                record.account or "-",
                record.status or "-",
                text_of_micros(record.last_at),
                str(record.callbacks),
                _counts(record.devices),
            )
            for record in records
        ],
    )
    if not records:
        log("upcall: no callback has named a campaign yet.")


@app.command()
def show(
    campaign_id: Annotated[str, typer.Argument(metavar="ID", help="The campaign's id.")],
    *,
    store: StoreOption = None,
    json: JsonOption = False,
) -> None:
    """Show one campaign and the state of each of its devices."""
    from upcall.cli.reading import reading
    from upcall.errors import UpcallError
    from upcall.thingspace import text_of_micros

    with reading(store) as inbox:
        found = inbox.campaign(campaign_id)
        url = inbox.url
    if found is None:
        raise UpcallError(f"no callback in {url} names campaign {campaign_id}.", hint="Try: upcall campaigns list")
    campaign, devices = found
    if json:
        emit(
            {
                "campaign_id": campaign.campaign_id,
                "account": campaign.account,
                "name": campaign.name,
                "status": campaign.status,
                "devices": [
                    {
                        "device_id": device.device_id,
                        "status": device.status,
                        "reason": device.reason,
                        "updated_at": text_of_micros(device.updated_at),
                        **({"contradiction": device.contradiction} if device.contradiction else {}),
                    }
                    for device in devices
                ],
            }
        )
        return
    for text in (
        f"campaign  {campaign.campaign_id}  {campaign.name or ''}".rstrip(),
        f"account   {campaign.account or '-'}",
        f"status    {campaign.status or '-'}",
        f"heard     {text_of_micros(campaign.first_at)} to {text_of_micros(campaign.last_at)}",
        f"devices   {_counts(campaign.devices)}",
    ):
        line(visible(text))
    line("")
    table(
        ("DEVICE", "STATUS", "REASON", "UPDATED", "CONTRADICTION"),
        [
            (
                device.device_id,
                device.status or "-",
                device.reason or "-",
                text_of_micros(device.updated_at),
                device.contradiction or "",
            )
            for device in devices
        ],
    )


def _counts(devices: dict[str, int]) -> str:
    return ", ".join(f"{count} {status or 'unknown'}" for status, count in devices.items()) or "-"
