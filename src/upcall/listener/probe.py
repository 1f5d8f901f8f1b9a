"""The proof that a listener is there, and which one: it knows the token, and says whom it takes the asker for.

Anything answers 200. Only a listener that holds the token can answer a question that nobody asked before with what the
token alone can make of it. The answer repeats nothing of the question.
"""

from __future__ import annotations

import hashlib
import hmac
import re
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Final

import msgspec

from upcall.listener.answers import Answer, answer

if TYPE_CHECKING:
    from upcall.listener.gate import Token
    from upcall.listener.sources import Source

__all__ = ["PROBE", "ProbeAnswer", "nonce_of", "prove", "proves"]

PROBE: Final = "probe"
"""The parameter of the query that asks for a proof."""

_FIELD: Final = f"{PROBE}=".encode()
_NONCE: Final = re.compile(rb"[A-Za-z0-9_-]{16,64}")
_MOST_QUERY: Final = 1024
"""How long a query may be in which a probe is looked for."""


class ProbeAnswer(msgspec.Struct, frozen=True, kw_only=True):
    """Say what a listener answers a probe.

    Args:
        proof: HMAC-SHA256 of the nonce under the token, in hexadecimal.
        source: The address that the listener takes the asker for.
        listed: Whether the provider publishes that address; None where the asker is on the listener's machine.
        time: The listener's clock, RFC 3339, UTC.
    """

    proof: str
    source: str
    listed: bool | None
    time: str


def nonce_of(target: bytes) -> bytes | None:
    """Return the nonce of a probe, None where a request is none. Total over any bytes.

    Args:
        target: The request's target, or its end from the question mark on.
    """
    query = target.partition(b"?")[2]
    if len(query) > _MOST_QUERY:
        return None
    given = next((field for field in query.split(b"&") if field.startswith(_FIELD)), None)
    if given is None or not _NONCE.fullmatch(given, len(_FIELD)):
        return None
    return given[len(_FIELD) :]


def prove(token: Token, nonce: bytes, source: Source, now: float) -> Answer:
    """Make the answer to a probe.

    Args:
        token: The token that it came through.
        nonce: What was asked.
        source: Whom the asker is taken for.
        now: The time, in seconds since 1970.
    """
    said = ProbeAnswer(
        proof=_proof(token.secret, nonce),
        source=source.address,
        listed=source.listed,
        time=datetime.fromtimestamp(now, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z"),
    )
    return answer(200, msgspec.json.encode(said), "Cache-Control: no-store")


def proves(proof: str, secret: str, nonce: bytes) -> bool:
    """Tell whether a proof is one that only who knows the token can make of the nonce."""
    return hmac.compare_digest(proof.encode("utf-8", "surrogatepass"), _proof(secret, nonce).encode())


def _proof(secret: str, nonce: bytes) -> str:
    return hmac.new(secret.encode(), b"upcall probe " + nonce, hashlib.sha256).hexdigest()
