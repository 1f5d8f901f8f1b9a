"""Every exception that Upcall raises on purpose.

::

    UpcallError
    ├── ThingSpaceError                  the provider, or the way to it
    │   ├── RequestNotSentError          nothing left this machine: safe to call again
    │   ├── NoAnswerError                it left, no answer came: read back before you write again
    │   ├── AnsweredError                the provider answered with an error
    │   │   └── FotaV2ResultException    status 400 of a software-management call
    │   ├── CredentialsError             the provider refused who we are
    │   │   └── LoginLatchedError        refused here, before the provider locks the account
    │   └── UndecodableAnswerError       an answer that is not what the documentation promises
    ├── StoreError                       the inbox cannot be opened or used
    │   ├── StoreUnreadableError         not there, not ours, or not readable
    │   └── StoreVersionError            written by a newer Upcall, or by one too old
    ├── SettingsError                    an option, variable or settings file is wrong
    ├── StartError                       a server or a module could not start
    ├── NotASandboxError                 a command that only a sandbox may receive
    └── DeliveryError                    a guarded POST to somebody else's URL failed
        └── TargetRefusedError           the address is not one that was allowed
"""

from __future__ import annotations

from typing import ClassVar

__all__ = [
    "AnsweredError",
    "CredentialsError",
    "DeliveryError",
    "FotaV2ResultException",
    "LoginLatchedError",
    "NoAnswerError",
    "NotASandboxError",
    "RequestNotSentError",
    "SettingsError",
    "StartError",
    "StoreError",
    "StoreUnreadableError",
    "StoreVersionError",
    "TargetRefusedError",
    "ThingSpaceError",
    "UndecodableAnswerError",
    "UpcallError",
]


class UpcallError(Exception):
    """Carry what happened and what to do next.

    Args:
        message: What happened, with the values, without secrets or bodies.
        hint: What to do next, with the command where there is one.
    """

    exit_code: ClassVar[int] = 1
    """What the command line exits with when this error ends a command."""

    def __init__(self, message: str = "", *, hint: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint

    def __str__(self) -> str:
        return f"{self.message} {self.hint}" if self.hint else self.message


class ThingSpaceError(UpcallError):
    """Report a call to the provider that did not succeed.

    Args:
        message: What happened.
        hint: What to do next.
        operation: The operation's name, such as ``register_callback``.
        status_code: The answer's HTTP status, None where there was no answer.
        error_code: The provider's own code, such as ``INVALID_PARAMETER``.
        error_message: The provider's own text.
        request_id: The provider's id for the request, where it sent one.
        attempts: How many times the request was sent.
        elapsed_seconds: From the call to this error.
        retry_after_seconds: How long the provider asked to be left alone, None where it did not.
    """

    exit_code = 4

    def __init__(
        self,
        message: str = "",
        *,
        hint: str | None = None,
        operation: str | None = None,
        status_code: int | None = None,
        error_code: str | None = None,
        error_message: str | None = None,
        request_id: str | None = None,
        attempts: int = 0,
        elapsed_seconds: float = 0.0,
        retry_after_seconds: float | None = None,
    ) -> None:
        super().__init__(message, hint=hint)
        self.operation = operation
        self.status_code = status_code
        self.error_code = error_code
        self.error_message = error_message
        self.request_id = request_id
        self.attempts = attempts
        self.elapsed_seconds = elapsed_seconds
        self.retry_after_seconds = retry_after_seconds


class RequestNotSentError(ThingSpaceError):
    """Say that nothing reached the provider; calling again is safe."""


class NoAnswerError(ThingSpaceError):
    """Say that the request left and no answer came; it may have been carried out."""


class AnsweredError(ThingSpaceError):
    """Say that the provider answered with an error status."""


class FotaV2ResultException(AnsweredError):  # noqa: N818 - the provider's SDK names it so
    """Report status 400 of a software-management call, with the provider's code and message."""


class CredentialsError(ThingSpaceError):
    """Say that the provider refused the client id, the user name or a token."""


class LoginLatchedError(CredentialsError):
    """Say that a login was refused here because the provider refused it before.

    Five refused logins in a row lock the account at the provider until its support unlocks it.
    """


class UndecodableAnswerError(ThingSpaceError):
    """Say that an answer came which is not what the documentation promises."""


class StoreError(UpcallError):
    """Say that the inbox cannot be used."""

    exit_code = 3


class StoreUnreadableError(StoreError):
    """Say that the store is not there, is not an inbox, or cannot be read."""


class StoreVersionError(StoreError):
    """Say that the store was written by a newer Upcall, or by an older one and was not upgraded."""


class SettingsError(UpcallError):
    """Say which option, variable or settings file is wrong, and how to put it right."""

    exit_code = 2


class StartError(UpcallError):
    """Say why a server or a module could not start."""

    exit_code = 3


class NotASandboxError(UpcallError):
    """Refuse to send to the provider what only a sandbox may receive."""

    exit_code = 2


class DeliveryError(UpcallError):
    """Report a guarded POST that failed.

    Args:
        message: What happened.
        hint: What to do next.
        kind: One word for the failure: ``connect``, ``tls``, ``timeout``, ``reset``, ``target`` or ``protocol``.
    """

    def __init__(self, message: str = "", *, hint: str | None = None, kind: str = "connect") -> None:
        super().__init__(message, hint=hint)
        self.kind = kind


class TargetRefusedError(DeliveryError):
    """Say that the address is not one that was allowed at start-up."""

    exit_code = 2
