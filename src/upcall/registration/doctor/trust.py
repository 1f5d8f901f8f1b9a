"""How strictly certificates are looked at: as the provider does, and less, to say what is wrong with one."""

from __future__ import annotations

import ssl
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from upcall.errors import SettingsError
from upcall.registration.doctor.handshakes import NO_CHECK_TIME

if TYPE_CHECKING:
    import os

__all__ = ["Contexts"]


class Contexts:
    """Hold what TLS needs; reading the authorities takes long, so each is made when it is first wanted.

    Args:
        trust: A file of authorities, in PEM, to believe beside the public ones.

    Raises:
        SettingsError: The file cannot be used.
    """

    def __init__(self, trust: str | os.PathLike[str] | None) -> None:
        self._trust = trust
        self.strict: ssl.SSLContext = _context(trust)

    @cached_property
    def any_name(self) -> ssl.SSLContext:
        """Return what admits any name."""
        context = _context(self._trust)
        context.check_hostname = False
        return context

    @cached_property
    def any_time(self) -> ssl.SSLContext:
        """Return what admits any name and any dates."""
        context = _context(self._trust)
        context.check_hostname = False
        context.verify_flags |= NO_CHECK_TIME
        return context

    @cached_property
    def any_chain(self) -> ssl.SSLContext:
        """Return what admits anything."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
        return context


def _context(trust: str | os.PathLike[str] | None) -> ssl.SSLContext:
    context = ssl.create_default_context()
    # Newer Pythons demand more of a certificate than the provider is known to.
    context.verify_flags &= ~ssl.VERIFY_X509_STRICT
    if trust is not None:
        try:
            context.load_verify_locations(Path(trust))
        except (OSError, ssl.SSLError) as error:
            why = "it holds no certificate in PEM" if isinstance(error, ssl.SSLError) else error.strerror
            raise SettingsError(f"--trust {trust} cannot be used: {why}.") from None
    return context
