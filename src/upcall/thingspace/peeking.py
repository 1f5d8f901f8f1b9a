"""What trust needs of a body, read without building the document that it holds.

A listener judges each body before it answers, on the loop that everybody's answer waits for, and a body may have 8 MiB.
"""

from __future__ import annotations

from typing import Any, Final

import msgspec

from upcall.thingspace.decoding import bytes_of, load_json, nests_too_deeply
from upcall.thingspace.events import CALLBACK_KINDS
from upcall.thingspace.reading import read_account, read_own_element

__all__ = ["peek_account"]

_BYTE_ORDER_MARK: Final = b"\xef\xbb\xbf"
_NOT_GIVEN: Final = msgspec.Raw()
_BLANKS: Final = b" \t\r\n"


class _Usual(msgspec.Struct, rename="camel"):
    account_name: str | None = None


class _Accounts(msgspec.Struct, rename="camel"):
    """The members of an element that can name its account."""

    account_name: msgspec.Raw = _NOT_GIVEN
    account: msgspec.Raw = _NOT_GIVEN
    aname: msgspec.Raw = _NOT_GIVEN


class _Envelope(_Accounts, rename="camel"):
    """The members of a message that have a say in its account."""

    type: msgspec.Raw = _NOT_GIVEN
    notification_type: msgspec.Raw = _NOT_GIVEN
    upgrade_scheduled: msgspec.Raw = _NOT_GIVEN
    upgrade_progress: msgspec.Raw = _NOT_GIVEN
    upgrade_finished: msgspec.Raw = _NOT_GIVEN


_usual = msgspec.json.Decoder(_Usual).decode
_envelope = msgspec.json.Decoder(_Envelope).decode
_accounts = msgspec.json.Decoder(_Accounts).decode
_members = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode
_only = msgspec.json.Decoder(tuple[msgspec.Raw]).decode
_raw = msgspec.json.Decoder(msgspec.Raw).decode
_decode = msgspec.json.Decoder().decode


def peek_account(raw: bytes | bytearray | memoryview | str) -> tuple[bool, str | None]:
    """Read from a body only what trust needs: whether it is JSON at all, and the account that it names.

    Args:
        raw: A callback's body, as for `parse_callback`.

    Returns:
        Whether `parse_callback` can decode it, and its account.
    """
    body = raw if isinstance(raw, bytes) else bytes_of(raw)
    try:
        return _peek_quickly(body.removeprefix(_BYTE_ORDER_MARK)) or _peek_fully(body)
    except RecursionError:
        return False, None


def _peek_quickly(body: bytes) -> tuple[bool, str | None] | None:
    """Read the account without building the document; None where that could say other than `load_json` would.

    What the quick decoders skip they do not check for UTF-8, nor for depth.
    """
    if not (body.isascii() or _is_utf8(body)):
        return None
    try:
        account = _usual_account(body) or _unusual_account(body)
    except (msgspec.DecodeError, UnicodeError):
        return None
    return (False, None) if nests_too_deeply(body) else (True, account)


def _usual_account(body: bytes) -> str | None:
    try:
        account = _usual(body).account_name
    except msgspec.ValidationError:
        return None
    return account and account.strip()


def _unusual_account(body: bytes) -> str | None:
    """Read the account off a sketch: the message without the members that have no say in it."""
    if not body.lstrip(_BLANKS).startswith(b"{"):
        _raw(body)
        return None
    sketch = _sketched(_envelope(body))
    for name in read_own_element(sketch):
        if name not in CALLBACK_KINDS and name in (members := _members(body)):
            sketch[name] = _sketch(members[name])
    return read_account(sketch)


def _sketched(members: msgspec.Struct) -> dict[str, Any]:
    names, values = members.__struct_encode_fields__, msgspec.structs.astuple(members)
    return {name: _sketch(value) for name, value in zip(names, values, strict=True) if value}


def _sketch(raw: msgspec.Raw) -> Any:
    """Decode a text or a number; of an object, or a list of one, keep what can name an account."""
    text = bytes(raw)
    if text.startswith(b"["):
        text = _only_object(text)
    if not text.startswith(b"{"):
        return _decode(text)
    is_empty = not text[1:-1].strip(_BLANKS)
    return {} if is_empty else {**_sketched(_accounts(text)), "": True}


def _only_object(text: bytes) -> bytes:
    """Return the object that a list holds and nothing else, else null."""
    try:
        (entry,) = map(bytes, _only(text))
    except msgspec.ValidationError:
        return b"null"
    return entry if entry.startswith(b"{") else b"null"


def _peek_fully(body: bytes) -> tuple[bool, str | None]:
    try:
        document = load_json(body)
    except ValueError:
        return False, None
    return True, read_account(document) if isinstance(document, dict) else None


def _is_utf8(body: bytes) -> bool:
    try:
        body.decode()
    except UnicodeDecodeError:
        return False
    return True
