"""Where each member of a decoded callback belongs; what has no place is kept and named.

Source: docs/callback-messages.md lists the keys in the order in which they are read.
"""

from __future__ import annotations

import re
from functools import lru_cache
from typing import Any, Final, TypeAlias

from upcall.thingspace.events import CALLBACK_KINDS, AvailableSoftware, CallbackEvent, DeviceUpdate, normalize_kind
from upcall.thingspace.statuses import CampaignState, is_known_device_word, normalize_campaign
from upcall.thingspace.times import ProviderTime, parse_time

__all__ = [
    "MAX_DRIFT",
    "read_account",
    "read_message",
    "read_own_element",
    "type_name",
    "unknown_status",
    "without_passwords",
]

_ACCOUNT_KEYS: Final = ("accountName", "account", "aname")
_KIND_KEYS: Final = ("type", "notificationType")
_CAMPAIGN_ID_KEYS: Final = ("campaignId", "upgradeId", "id")
_DEVICE_ID_KEYS: Final = ("deviceId", "imei")
_DEVICE_LIST_KEYS: Final = ("deviceList", "devices", "deviceIds")
_STATUS_KEYS: Final = ("status",)
_REASON_KEYS: Final = ("resultReason", "reason")
_TIME_KEYS: Final = ("updatedTime", "updateTime", "recentAttemptTime", "timeCompleted", "eventTime", "timestamp")

_CAMPAIGN_ELEMENTS: Final = CALLBACK_KINDS[1:]
_SOFTWARE_ELEMENTS: Final = ("firmwareList", "softwareList")
_ENVELOPE_KEYS: Final = frozenset(
    (*_ACCOUNT_KEYS, *_KIND_KEYS, *_CAMPAIGN_ELEMENTS, *_SOFTWARE_ELEMENTS, "username", "password", "participantName")
)
_CAMPAIGN_KEYS: Final = frozenset(
    (
        *_ACCOUNT_KEYS,
        *_CAMPAIGN_ID_KEYS,
        *_DEVICE_ID_KEYS,
        *_DEVICE_LIST_KEYS,
        *_STATUS_KEYS,
        *_TIME_KEYS,
        "campaignName",
        "firmwareName",
        "softwareName",
        "firmwareFrom",
        "firmwareTo",
        "softwareFrom",
        "softwareTo",
        "distributionType",
        "make",
        "model",
        "startDate",
        "endDate",
        "downloadAfterDate",
        "downloadTimeWindowList",
        "installAfterDate",
        "installTimeWindowList",
    )
)
_KNOWN_IN_ENVELOPE: Final = _ENVELOPE_KEYS | _CAMPAIGN_KEYS
_DEVICE_KEYS_IN_ORDER: Final = (*_DEVICE_LIST_KEYS, *_DEVICE_ID_KEYS)
_DEVICE_FIELD_KEYS: Final = frozenset((*_DEVICE_ID_KEYS, *_STATUS_KEYS, *_REASON_KEYS, *_TIME_KEYS))
_DEVICE_KEYS: Final = _DEVICE_FIELD_KEYS | {"nextAttemptTime"}
_SOFTWARE_FIELDS: Final = {
    "name": ("firmwareName", "softwareName", "name"),
    "make": ("make",),
    "model": ("model",),
    "from_version": ("fromVersion", "softwareFrom"),
    "to_version": ("toVersion", "softwareTo"),
    "launch_date": ("launchDate",),
    "release_note": ("releaseNote",),
}
_SOFTWARE_FIELD_KEYS: Final = frozenset(key for keys in _SOFTWARE_FIELDS.values() for key in keys)
_SOFTWARE_KEYS: Final = _SOFTWARE_FIELD_KEYS | {"participantName", "distributionType", "devicePlatformId"}

_NO_ELEMENTS: Final = (_ENVELOPE_KEYS | _CAMPAIGN_KEYS | set(_REASON_KEYS)) - set(_CAMPAIGN_ELEMENTS)

MAX_DRIFT: Final = 32
_MAX_QUOTED: Final = 60
_PLAIN_KEY: Final = re.compile(r"[A-Za-z_][A-Za-z_-]{0,59}")
_IDENTIFIER: Final = re.compile(r"[0-9]{6,}")
_TYPE_NAMES: Final = {dict: "an object", list: "an array", str: "a string", bool: "a boolean", type(None): "null"}

_Holder: TypeAlias = tuple[str, dict[str, Any]]
"""An object of the message, with the path at which it stands."""


def read_message(document: dict[str, Any]) -> CallbackEvent:
    """Make an event of a decoded message, without its `raw` and its `key`.

    Args:
        document: An object of any shape, from `load_json`.
    """
    return _Reader(document).event()


def read_account(document: dict[str, Any]) -> str | None:
    """Return the account of the event that `read_message` makes of a message, without making it.

    Args:
        document: As for `read_message`; only what names the account, the kind and the elements need be there.
    """
    return _AccountReader(document).account()


def read_own_element(document: dict[str, Any]) -> tuple[str, ...]:
    """Name the element that a message's kind names, if it names one.

    Args:
        document: As for `read_account`.
    """
    return _AccountReader(document).own_element()


class _Reader:
    """Place each member of one message, and note those that could not be placed.

    A campaign's members are looked for in the element that the type names, then in the envelope; a flat message has
    the envelope alone.
    """

    def __init__(self, document: dict[str, Any]) -> None:
        self.document = document
        self.extra: dict[str, Any] = {}
        self.drift: list[str] = []
        self.known_in_envelope = _KNOWN_IN_ENVELOPE

    def event(self) -> CallbackEvent:
        envelope = ("$", self.document)
        kind = self._kind()
        element = self._element(kind)
        if element is None:
            holders = [envelope]
        else:
            holders = [element, envelope]
            if "id" in self.document:  # beside an element, it may be the message's own
                holders[1] = ("$", {key: value for key, value in self.document.items() if key != "id"})
        devices, flat = self._devices(holders)
        for holder in holders:
            self._keep_unknown(holder, has_device=holder is flat)
        if element is not None and _present(self.document.get("id")):
            self._keep(envelope, "id", "beside an element")
        campaign_status = self._read(_STATUS_KEYS, *(holder for holder in holders if holder is not flat))
        if campaign_status is not None and not isinstance(normalize_campaign(campaign_status), CampaignState):
            self._note(unknown_status(holders[0][0], campaign_status))
        return CallbackEvent(
            kind=kind,
            account=self._read(_ACCOUNT_KEYS, envelope, *holders[:-1]),
            campaign_id=self._read(_CAMPAIGN_ID_KEYS, *holders),
            campaign_name=self._read(("campaignName",), *holders),
            campaign_status=campaign_status,
            devices=devices,
            software=self._software(),
            time=self._first_time(holders),
            extra=self.extra,
            drift=tuple(self.drift),
        )

    def _kind(self) -> str | None:
        said = self._read(_KIND_KEYS, ("$", self.document))
        if said is not None:
            kind = normalize_kind(said)
            if kind not in CALLBACK_KINDS:
                self._note(f"$.type: unknown kind {_quoted(said)}")
            return kind
        if any(_present(self.document.get(name)) for name in _SOFTWARE_ELEMENTS):
            return "firmwareList"
        for name in _CAMPAIGN_ELEMENTS:
            if _present(self.document.get(name)):
                return name
        self._note("$.type: missing")
        return None

    def _element(self, kind: str | None) -> _Holder | None:
        """Find the object that the kind names, else another one that is filled."""
        chosen: _Holder | None = None
        for name in dict.fromkeys((*_own_element(kind), *_CAMPAIGN_ELEMENTS)):
            if name not in self.document:
                continue
            element = _only(self.document[name])
            if not _present(element):
                continue
            if not isinstance(element, dict):
                if name in _CAMPAIGN_ELEMENTS:
                    self._keep(("$", self.document), name, f"{type_name(element)} in place of an object")
            elif chosen:
                self._keep(("$", self.document), name, f"filled beside {chosen[0]}")
            else:
                chosen = (_at("$", name), element)
                if name not in self.known_in_envelope:
                    self.known_in_envelope |= {name}
                if kind in CALLBACK_KINDS and name != kind:
                    self._note(f"$.{name}: filled in a message of type {kind}")
        return chosen

    def _devices(self, holders: list[_Holder]) -> tuple[tuple[DeviceUpdate, ...], _Holder | None]:
        """Read the devices, and tell which holder is itself one device, if any is."""
        devices = self._listed_devices(holders)
        for holder in holders:
            path, members = holder
            single: dict[str, Any] = {
                key: members[key]
                for key in _DEVICE_ID_KEYS
                if key in members and not isinstance(members[key], (dict, list))
            }
            device_id = self._read(_DEVICE_ID_KEYS, (path, single)) if single else None
            if device_id is None:
                continue
            if not devices:
                return (self._device(holder, device_id, {}),), holder
            if all(device.device_id != device_id for device in devices):
                self._keep(holder, next(iter(single)), "beside a list of devices")
        return devices, None

    def _listed_devices(self, holders: list[_Holder]) -> tuple[DeviceUpdate, ...]:
        devices: tuple[DeviceUpdate, ...] = ()
        for holder in holders:
            path, members = holder
            for key in _DEVICE_KEYS_IN_ORDER:
                if key not in members:
                    continue
                entries = members[key]
                if not _present(entries) or (key in _DEVICE_ID_KEYS and not isinstance(entries, (dict, list))):
                    continue
                if devices:
                    self._keep(holder, key, "a second list of devices")
                else:
                    devices = self._device_list(f"{path}.{key}", entries)
        return devices

    def _device_list(self, path: str, entries: Any) -> tuple[DeviceUpdate, ...]:
        devices = []
        for index, entry in enumerate(entries if isinstance(entries, list) else [entries]):
            place = f"{path}[{index}]"
            if isinstance(entry, dict):
                device_id = self._read(_DEVICE_ID_KEYS, (place, entry))
                if device_id is not None:
                    extra = self._fieldless((place, entry), _DEVICE_FIELD_KEYS, _DEVICE_KEYS)
                    devices.append(self._device((place, entry), device_id, extra))
                    continue
            elif (bare := _text_of(entry)) is not None:
                devices.append(DeviceUpdate(device_id=bare))
                continue
            if _present(entry):
                self._note(f"{place}: no device id")
                self.extra[place] = without_passwords(entry)
        return tuple(devices)

    def _device(self, holder: _Holder, device_id: str, extra: dict[str, Any]) -> DeviceUpdate:
        status = self._read(_STATUS_KEYS, holder)
        if status is not None and not is_known_device_word(status):
            self._note(unknown_status(holder[0], status))
        return DeviceUpdate(
            device_id=device_id,
            status=status,
            reason=self._read(_REASON_KEYS, holder),
            time=self._time(holder),
            extra=extra,
        )

    def _software(self) -> tuple[AvailableSoftware, ...]:
        found = []
        for key in _SOFTWARE_ELEMENTS:
            if key not in self.document:
                continue
            entries = self.document[key]
            for index, entry in enumerate(entries if isinstance(entries, list) else [entries]):
                place = f"$.{key}[{index}]"
                if isinstance(entry, dict) and entry:
                    found.append(self._available((place, entry)))
                elif _present(entry):
                    self._note(f"{place}: {type_name(entry)} in place of an object")
                    self.extra[place] = without_passwords(entry)
        return tuple(found)

    def _available(self, holder: _Holder) -> AvailableSoftware:
        fields: dict[str, Any] = {name: self._read(keys, holder) for name, keys in _SOFTWARE_FIELDS.items()}
        return AvailableSoftware(**fields, extra=self._fieldless(holder, _SOFTWARE_FIELD_KEYS, _SOFTWARE_KEYS))

    def _first_time(self, holders: list[_Holder]) -> ProviderTime | None:
        for holder in holders:
            if time := self._time(holder):
                return time
        return None

    def _time(self, holder: _Holder) -> ProviderTime | None:
        """Read the first time that is given."""
        path, members = holder
        for key in _TIME_KEYS:
            if key not in members or (value := members[key]) is None:
                continue
            text = _text_of(value)
            if text is not None:
                time = parse_time(text)
                if time.micros is None:
                    self._note(f"{path}.{key}: a time in no known format")
                return time
            if _present(value):
                self._keep(holder, key, f"{type_name(value)} in place of a text")
        return None

    def _read(self, keys: tuple[str, ...], *holders: _Holder) -> str | None:
        """Return the first text under any of the keys; keep what is no text, and texts that contradict it."""
        found = None
        for holder in holders:
            members = holder[1]
            for key in keys:
                if key not in members or (value := members[key]) is None:
                    continue
                text = _text_of(value)
                if text is None:
                    if _present(value):
                        self._keep(holder, key, f"{type_name(value)} in place of a text")
                elif found is None:
                    found = text
                elif text != found:
                    self._keep(holder, key, "differs from the member that was read")
        return found

    def _fieldless(self, holder: _Holder, placed: frozenset[str], known: frozenset[str]) -> dict[str, Any]:
        """Return the members that have no field, noting those that nobody documented."""
        path, members = holder
        if members.keys() <= placed:
            return {}
        extra = {key: value for key, value in members.items() if key not in placed and _present(value)}
        for key in extra.keys() - known:
            self._note(f"{_at(path, key)}: unknown member")
        return {key: without_passwords(value) for key, value in extra.items() if not _is_password(key)}

    def _keep_unknown(self, holder: _Holder, *, has_device: bool) -> None:
        path, members = holder
        known = self.known_in_envelope if path == "$" else _CAMPAIGN_KEYS
        if members.keys() <= known:
            return
        for key, value in members.items():
            if key not in known and _present(value) and not (has_device and key in _REASON_KEYS):
                self._keep(holder, key, "unknown member")

    def _keep(self, holder: _Holder, key: str, why: str) -> None:
        path, members = holder
        self._note(f"{_at(path, key)}: {why}")
        place = key if path == "$" else f"{path}.{key}"
        if not _is_password(key):
            self.extra[place] = without_passwords(members[key])

    def _note(self, line: str) -> None:
        if len(self.drift) < MAX_DRIFT:
            self.drift.append(line)


class _AccountReader(_Reader):
    """Read the account alone: what has no place is neither kept nor noted."""

    def own_element(self) -> tuple[str, ...]:
        return _own_element(self._kind())

    def account(self) -> str | None:
        element = self._element(self._kind())
        return self._read(_ACCOUNT_KEYS, ("$", self.document), *(() if element is None else (element,)))

    def _keep(self, holder: _Holder, key: str, why: str) -> None:
        pass

    def _note(self, line: str) -> None:
        pass


def unknown_status(path: str, word: str) -> str:
    """Word the drift of a status that no page names.

    Args:
        path: Where the object that has it stands.
        word: The status.
    """
    return f"{path}.status: unknown status {_quoted(word)}"


def _text_of(value: Any) -> str | None:
    """Return the text of a scalar, None where it says nothing; ids and versions do come as numbers."""
    if type(value) is str:  # as nearly all are
        return value.strip() or None
    return str(value) if isinstance(value, (int, float)) and not isinstance(value, bool) else None


def type_name(value: Any) -> str:
    """Name a JSON type for a reader, such as ``an array``."""
    return _TYPE_NAMES.get(type(value), "a number")


def without_passwords(value: Any) -> Any:
    """Leave out every member named ``password``, at any depth."""
    if isinstance(value, dict):
        return {key: without_passwords(item) for key, item in value.items() if not _is_password(key)}
    return [without_passwords(item) for item in value] if isinstance(value, list) else value


def _is_password(key: str) -> bool:
    return key.casefold() == "password"


def _present(value: Any) -> bool:
    """Tell a value from none: null, blank text, [], {} and absent read alike."""
    if isinstance(value, str):
        return bool(value) and not value.isspace()
    return value not in (None, [], {})


def _only(value: Any) -> Any:
    """Return the entry of a list of one."""
    return value[0] if isinstance(value, list) and len(value) == 1 else value


def _own_element(kind: str | None) -> tuple[str, ...]:
    """Name the element of a kind; an unknown kind's is expected under its own name."""
    if kind is None or kind in _NO_ELEMENTS or _is_password(kind):
        return ()
    return (kind,)


def _at(path: str, key: str) -> str:
    return f"{path}.{key}" if _PLAIN_KEY.fullmatch(key) else f"{path}[{_quoted(key)}]"


def _quoted(text: str) -> str:
    """Show a text on one line, short, and without the digits that could identify a device."""
    return _quoted_start(text[:_MAX_QUOTED])


@lru_cache(maxsize=256)
def _quoted_start(text: str) -> str:
    return repr(_IDENTIFIER.sub("#", text))
