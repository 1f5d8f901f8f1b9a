"""Signatures as Standard Webhooks has them: HMAC-SHA256 over the id, the time and the body's bytes."""

from __future__ import annotations

import base64
import hmac
from typing import TYPE_CHECKING, Final, Self

from upcall.errors import SettingsError

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["Signer"]

_PREFIX: Final = "whsec_"
_KEY_BYTES: Final = range(24, 65)


class Signer:
    """Sign what is forwarded.

    Args:
        keys: The keys; each gives a signature, so that a receiver may change from one to the next.

    Source: the specification of Standard Webhooks 1.0.0, "Webhook signature" (documented).
    """

    def __init__(self, keys: Sequence[bytes]) -> None:
        self._keys = tuple(keys)

    @classmethod
    def parse(cls, text: str, *, place: str) -> Self:
        """Read secrets of the form ``whsec_`` and base64, several of them apart by spaces.

        Args:
            text: The secrets.
            place: Where they stand, for the error.

        Raises:
            SettingsError: One cannot be read; the message does not show it.
        """
        return cls([_key(secret, place) for secret in text.split()])

    def headers(self, message_id: str, timestamp: int, body: bytes) -> dict[str, str]:
        """Return the headers of one attempt.

        Args:
            message_id: The same for each attempt.
            timestamp: When this attempt is made, in seconds since 1970.
            body: The bytes that are sent.
        """
        signed = b"%b.%d.%b" % (message_id.encode(), timestamp, body)
        signatures = [base64.b64encode(hmac.digest(key, signed, "sha256")).decode() for key in self._keys]
        return {
            "webhook-id": message_id,
            "webhook-timestamp": str(timestamp),
            "webhook-signature": " ".join(f"v1,{signature}" for signature in signatures),
        }


def _key(secret: str, place: str) -> bytes:
    hint = "Write whsec_ and base64 of 24 to 64 random bytes, such as of: openssl rand -base64 32"
    encoded = secret.removeprefix(_PREFIX)
    try:
        key = base64.b64decode(encoded + "=" * (-len(encoded) % 4), validate=True)
    except ValueError:
        raise SettingsError(f"{place} holds a secret that is not base64.", hint=hint) from None
    if len(key) not in _KEY_BYTES:
        raise SettingsError(f"{place} holds a secret of {len(key)} bytes.", hint=hint)
    return key
