"""Reconciling one account: read its reports, hand what they say to the inbox, name what cannot be filled."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final

import msgspec

from upcall.errors import AnsweredError, CredentialsError, ThingSpaceError, UndecodableAnswerError
from upcall.inbox import Selection
from upcall.registration.reconcile.bodies import campaign_reported, device_reported
from upcall.registration.reconcile.choosing import choose, is_open
from upcall.registration.reconcile.comparing import (
    compare,
    compare_campaign,
    missing_devices,
    not_recoverable,
    skipped_states,
)
from upcall.registration.reconcile.progress import Found, Position
from upcall.registration.reconcile.reader import StoppedError
from upcall.registration.reconcile.trail import Trail
from upcall.registration.reconcile.values import MissingReport, Reconciled, ReconcileProgress
from upcall.registration.reconcile.walking import Walk

if TYPE_CHECKING:
    from collections.abc import Mapping

    from upcall.inbox import CampaignRecord, DeviceRecord, Inbox, Reported
    from upcall.registration.reconcile.pages import DevicePage, ReportedCampaign
    from upcall.registration.reconcile.reader import Reader

__all__ = ["AccountRun", "Terms", "catch_up"]

_AT_A_TIME: Final = 500
"""Callbacks that are looked at in one step."""
_OF_ONE_CAMPAIGN: Final = frozenset({400, 404, 410})
"""Refusals that are about one campaign's report, and not about the account's."""
_OF_EVERYBODY: Final = frozenset({"request_token", "login"})
"""Operations that are refused for each account of these credentials if they are for one."""
_MOST_IN_A_ROW: Final = 3
"""So many campaigns one after the other that cannot be read are not about one campaign."""
_BEGINNING: Final = "0"
"""Source: reports V2, "start with lastSeenDeviceId 0" (documented)."""


class Terms(msgspec.Struct, frozen=True, kw_only=True):
    """Say how accounts are reconciled.

    Args:
        now: Returns the time, UTC microseconds.
        silent_after_micros: A device that is not final and was not heard of for so long is silent.
        is_dry: Keep nothing, and count what would be kept.
        on_progress: Told after each page.
    """

    now: Callable[[], int]
    silent_after_micros: int
    is_dry: bool = False
    on_progress: Callable[[ReconcileProgress], object] | None = None


def catch_up(inbox: Inbox) -> None:
    """Bring the read model up to the newest callback; it ends where callbacks keep coming, too."""
    newest = inbox.callbacks(limit=1, bodies=False)
    while newest and inbox.project(upto=newest[-1].id):
        pass


class AccountRun:
    """Reconcile one account, once.

    Args:
        account: The account.
        told: Its campaigns as callbacks tell them, by name.
        reader: Reads its reports.
        inbox: Where they are kept.
        terms: How it is done.

    Attributes:
        refusal: Why the provider refuses who calls, None where it does not.
    """

    def __init__(
        self, account: str, told: Mapping[str, CampaignRecord], reader: Reader, inbox: Inbox, terms: Terms
    ) -> None:
        self._account = account
        self._told = told
        self._reader = reader
        self._inbox = inbox
        self._terms = terms
        self._trail = Trail(inbox, account, is_kept=not terms.is_dry)
        self._began_at = terms.now()
        self._position = Position(begun_at=self._began_at, since=self._began_at)
        self._missing: list[MissingReport] = []
        self._to_read = 0
        self._totals: dict[str, int] = {}
        self._later: list[str] = []
        self.refusal: CredentialsError | None = None

    def run(self, since: int) -> Reconciled:
        """Read what can be read. What cannot is in the result; after an error that may pass the next run goes on.

        Args:
            since: From when on callbacks may be missing, UTC microseconds.

        Raises:
            StoreError: The inbox cannot be used.
        """
        resumed = self._trail.resume(since=since, now=self._began_at)
        self._position = resumed or Position(begun_at=self._began_at, since=since)
        try:
            self._read()
        except StoppedError:
            return self._result(finished=False)
        except ThingSpaceError as error:
            if isinstance(error, CredentialsError) and error.operation in _OF_EVERYBODY:
                self.refusal = error
            return self._result(f"{error}", finished=False)
        if self._later:
            return self._result(finished=False)
        self._trail.clear()
        return self._result(finished=True)

    def _read(self) -> None:
        listed = self._list()
        wanted = choose(listed.values(), self._told, self._position.since)
        chosen = {campaign.campaign_id: campaign for campaign in wanted}
        under_way = self._position.campaign_id
        if under_way in listed:  # first, and whether or not it would be chosen now that some of it was read
            chosen = {under_way: listed[under_way]} | chosen
        left = [campaign for campaign in chosen.values() if campaign.campaign_id not in self._position.done]
        self._to_read = len(self._position.done) + len(left)
        self._report()
        in_a_row = 0
        for campaign in left:
            try:
                self._read_campaign(campaign, self._told.get(campaign.campaign_id))
            except (AnsweredError, UndecodableAnswerError) as error:
                # It may be about this campaign alone: the others are read, and this one by the next run. The last one
                # keeps its place, and the next run goes on within it.
                in_a_row += 1
                if in_a_row == _MOST_IN_A_ROW or campaign is left[-1]:
                    raise
                self._put_off(campaign, error)
            else:
                in_a_row = 0

    def _put_off(self, campaign: ReportedCampaign, error: ThingSpaceError) -> None:
        """Leave a campaign to the next run, which reads it from the beginning."""
        self._later.append(f"The device report of campaign {campaign.campaign_id} cannot be read now: {error}")
        self._trail.read_again(self._position)
        self._move(campaign_id="", last_seen_device_id=_BEGINNING, pages=0)

    def _list(self) -> dict[str, ReportedCampaign]:
        """Return the account's campaigns as the provider has them, and name those that it does not have."""
        unfinished = [record for record in self._told.values() if is_open(record)]
        listing = self._reader.campaigns(some_expected=bool(unfinished))
        self._note(remarks=listing.remarks, errors=(f"{listing.trouble}.",) if listing.trouble else ())
        listed = {campaign.campaign_id: campaign for campaign in listing.campaigns}
        for record in unfinished:
            if record.campaign_id in listed:
                continue
            # Nobody knows what the list leaves out: the campaign itself is asked for before it is called missing.
            try:
                campaign = self._reader.campaign(record.campaign_id)
            except AnsweredError as error:  # one campaign's trouble, with the account's list read
                self._note(errors=(f"Campaign {record.campaign_id} cannot be read: {error}",))
                continue
            if campaign is None:
                self._missing.append(MissingReport(record.campaign_id, "", record.status))
            else:
                listed[record.campaign_id] = msgspec.structs.replace(campaign, campaign_id=record.campaign_id)
        return listed

    def _read_campaign(self, campaign: ReportedCampaign, record: CampaignRecord | None) -> None:
        if self._position.campaign_id != campaign.campaign_id:
            silent = () if self._was_named(campaign.campaign_id, record) else (campaign.campaign_id,)
            self._move(
                campaign_id=campaign.campaign_id,
                last_seen_device_id=_BEGINNING,
                pages=0,
                silent_campaigns=tuple(dict.fromkeys((*self._position.silent_campaigns, *silent))),
            )
        trouble = self._read_devices(campaign)
        self._note(errors=(trouble,) if trouble else ())
        self._trail.find(self._position, compare_campaign(campaign, record))
        # After its devices: a handler that hears of a campaign's end has heard of them.
        reported = campaign_reported(self._account, campaign)
        news = self._append([reported]) if reported is not None else [False]
        self._move(
            campaign_id="",
            done=(*self._position.done, campaign.campaign_id),
            campaigns_differed=self._position.campaigns_differed + sum(news),
        )
        self._report()

    def _was_named(self, campaign_id: str, record: CampaignRecord | None) -> bool:
        """Tell whether a callback that came named a campaign: reconciled ones did not come."""
        after, limit = 0, 1
        while records := self._inbox.callbacks(
            Selection(campaign_id=campaign_id, after=after), limit=limit, oldest=True, bodies=False
        ):
            if any(callback.origin != "reconciled" for callback in records):
                return True
            after, limit = records[-1].id, _AT_A_TIME
        return record is not None and after == 0  # the callbacks that did were removed since

    def _read_devices(self, campaign: ReportedCampaign) -> str | None:
        """Read where a campaign's devices stand; return why these are not all of them, None where they are."""
        told = self._told_devices(campaign.campaign_id)
        try:
            trouble = self._walk(campaign, told)
        except ValueError as error:
            return f"The device report of campaign {campaign.campaign_id} cannot be asked for: {error}."
        except AnsweredError as error:
            if error.status_code not in _OF_ONE_CAMPAIGN:
                raise
            return f"The device report of campaign {campaign.campaign_id} cannot be read: {error}"
        if trouble is not None:
            return f"The device report of campaign {campaign.campaign_id} {trouble}: the rest of it was not read."
        met = {device_id for found in self._trail.findings(campaign.campaign_id) for device_id in found.met}
        missing = missing_devices(campaign.campaign_id, told.values(), met)
        self._trail.find(self._position, Found(missing=missing))
        return None

    def _told_devices(self, campaign_id: str) -> dict[str, DeviceRecord]:
        catch_up(self._inbox)
        found = self._inbox.campaign(campaign_id)
        return {} if found is None else {device.device_id: device for device in found[1]}

    def _walk(self, campaign: ReportedCampaign, told: Mapping[str, DeviceRecord]) -> str | None:
        page = self._first_page(campaign.campaign_id)
        walk = Walk(self._position.last_seen_device_id)
        while True:
            self._take(campaign, page, told, new=walk.take(page))
            if walk.is_over:
                return walk.trouble
            self._move(last_seen_device_id=walk.position or _BEGINNING, pages=self._position.pages + 1)
            page = self._reader.devices(campaign.campaign_id, self._position.last_seen_device_id)

    def _first_page(self, campaign_id: str) -> DevicePage:
        try:
            return self._reader.devices(campaign_id, self._position.last_seen_device_id)
        except AnsweredError as error:
            if self._position.last_seen_device_id == _BEGINNING or error.status_code not in _OF_ONE_CAMPAIGN:
                raise
        # The device that the interrupted run had read last is in the campaign no more.
        self._trail.read_again(self._position)
        self._move(last_seen_device_id=_BEGINNING, pages=0)
        return self._reader.devices(campaign_id, _BEGINNING)

    def _take(
        self, campaign: ReportedCampaign, page: DevicePage, told: Mapping[str, DeviceRecord], *, new: int
    ) -> None:
        """Name what is to be named in a page, and hand its devices to the inbox.

        In this order: what is handed over is no longer silent, and an interruption in between is gone on with.
        """
        heard_since = self._terms.now() - self._terms.silent_after_micros
        found = compare(campaign.campaign_id, page, told, heard_since=heard_since)
        self._trail.find(self._position, msgspec.structs.replace(found, devices=new))
        news = self._append([device_reported(self._account, campaign, device) for device in page.devices])
        differing = [device for device, is_news in zip(page.devices, news, strict=True) if is_news]
        skipped = [device for device in differing if skipped_states(told.get(device.device_id), device.status)]
        self._move(differed=self._position.differed + len(differing), skipped=self._position.skipped + len(skipped))
        if page.total is not None:
            self._totals[campaign.campaign_id] = page.total
        self._report()

    def _append(self, reported: list[Reported]) -> list[bool]:
        """Hand over what is reported, and return for each whether it was news."""
        ids = self._inbox.append_reported(reported, self._terms.now(), dry_run=self._terms.is_dry)
        return [callback_id is not None for callback_id in ids]

    def _note(self, *, remarks: tuple[str, ...] = (), errors: tuple[str, ...] = ()) -> None:
        """Remember sentences, each once: a run that goes on meets the same again."""
        self._move(
            remarks=tuple(dict.fromkeys((*self._position.remarks, *remarks))),
            errors=tuple(dict.fromkeys((*self._position.errors, *errors))),
        )

    def _move(self, **changes: Any) -> None:
        position = msgspec.structs.replace(self._position, **changes)
        if position != self._position:
            self._position = position
            self._trail.move(position, self._terms.now())

    def _report(self) -> None:
        if self._terms.on_progress is None:
            return
        devices = sum(found.devices for found in self._trail.findings())
        self._terms.on_progress(
            ReconcileProgress(
                account=self._account,
                campaign_id=self._position.campaign_id,
                campaigns_done=len(self._position.done),
                campaigns=self._to_read,
                devices=devices,
                total=max(devices, sum(self._totals.values())),
            )
        )

    def _result(self, *errors: str, finished: bool) -> Reconciled:
        position, found = self._position, self._trail.findings()
        unreadable = sum(one.unreadable for one in found)
        remarks = (f"{unreadable} entries of device reports name no device or no state.",) if unreadable else ()
        return Reconciled(
            account=self._account,
            since=position.since,
            until=self._began_at,
            resumed_from=position.begun_at if position.begun_at != self._began_at else None,
            finished=finished,
            campaigns=len(position.done),
            devices=sum(one.devices for one in found),
            differed=position.differed,
            campaigns_differed=position.campaigns_differed,
            silent_campaigns=position.silent_campaigns,
            silent_devices=tuple(device for one in found for device in one.silent),
            missing=(*self._missing, *(report for one in found for report in one.missing)),
            contradictions=tuple(contradiction for one in found for contradiction in one.contradictions),
            not_recoverable=not_recoverable(since=position.since, until=position.begun_at, skipped=position.skipped),
            remarks=(*position.remarks, *remarks),
            errors=(*position.errors, *self._later, *errors),
        )
