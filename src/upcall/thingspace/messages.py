"""The body of a callback, written: the one place that knows the envelope's shape.

The V2 schema is not public. This is its strongest-supported reconstruction: the envelope and the four ``type`` values
of V1, the elements that do not apply present but empty.
"""

from __future__ import annotations

from typing import Any

import msgspec

__all__ = ["callback_body"]


def callback_body(account: str, kind: str, element: Any) -> bytes:
    """Write a callback's body.

    Args:
        account: The account that it names.
        kind: One of `CALLBACK_KINDS`.
        element: What stands under the kind.

    Source: "About callback services" (documented for V1, inferred for V2).
    """
    document: dict[str, Any] = {
        "accountName": account,
        "type": kind,
        "firmwareList": [],
        "upgradeScheduled": {},
        "upgradeProgress": {},
        "upgradeFinished": {},
    }
    document[kind] = element
    return msgspec.json.encode(document)
