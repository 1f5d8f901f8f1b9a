"""Carry a step out: read again, decide again, write, read back; each write in the audit, before and after.

The thinking is one generator that asks for calls; two drivers make them.
"""

from __future__ import annotations

from collections.abc import Callable, Generator
from typing import TYPE_CHECKING, Any, Final, Literal, TypeAlias

import msgspec

from upcall.errors import AnsweredError, CredentialsError, RequestNotSentError
from upcall.redact import mask_url_token
from upcall.registration.planning import Standing, Step
from upcall.thingspace import check_account, check_callback_url

if TYPE_CHECKING:
    from upcall.client import AsyncThingSpaceClient, ThingSpaceClient
    from upcall.registration.audit import Audit

__all__ = ["Applied", "Ask", "Decide", "Permit", "carry_out", "drive", "drive_async", "flaw_of"]

_REFUSALS: Final = range(400, 500)

Decide: TypeAlias = Callable[[Standing], Step]
"""Says what is to be done, each time that an account is read."""

Permit: TypeAlias = Callable[[Step], str | None]
"""Says why a write must not be made, None where it may."""


class Ask(msgspec.Struct, frozen=True):
    """Ask the driver for one call; `repr` shows no URL.

    Args:
        method: The client's method.
        account: For which account.
        url: What it is to register, None for a call that takes none.
    """

    method: Literal["list_registered_callbacks", "register_callback", "update_callback", "deregister_callback"]
    account: str
    url: str | None = None

    def __repr__(self) -> str:
        return f"Ask({self.method!r}, {self.account!r})"

    @property
    def arguments(self) -> tuple[Any, ...]:
        """Return what the method takes."""
        return (self.account,) if self.url is None else (self.account, {"url": self.url})


class Applied(msgspec.Struct, frozen=True, kw_only=True):
    """Say what became of one step.

    Args:
        step: What was decided right before the write.
        outcome: ``none`` (nothing was to be done), ``done`` (it stands), ``differs`` (something else was read back) or
            ``refused`` (nothing was written).
        stands: The URL that stood when it was last read.
        why: Why it was refused, or what is wrong.
    """

    step: Step
    outcome: Literal["none", "done", "differs", "refused"]
    stands: str | None = None
    why: str | None = None

    def __repr__(self) -> str:
        return f"Applied({self.step!r}, {self.outcome!r}, why={self.why!r})"


Flow: TypeAlias = Generator[Ask, Any, Applied]


def carry_out(account: str, decide: Decide, permit: Permit, audit: Audit) -> Flow:
    """Bring one account in order: what was planned is decided anew by what stands right before the write.

    Args:
        account: The account.
        decide: Says what is to be done.
        permit: Says why a write must not be made.
        audit: Takes what is written.
    """
    summary = yield Ask("list_registered_callbacks", account)
    step = decide(Standing(account=account, url=summary.url))
    if not step.is_write:
        outcome: Literal["none", "refused"] = "refused" if step.differs else "none"
        return Applied(step=step, outcome=outcome, stands=step.registered, why=step.note if step.differs else None)
    refusal = permit(step)
    if refusal is not None:
        return Applied(step=step, outcome="refused", stands=step.registered, why=refusal)
    return (yield from _write(step, audit))


def drive(flow: Flow, client: ThingSpaceClient) -> Applied:
    """Make the calls that a flow asks for.

    Raises:
        ThingSpaceError: One failed.
    """
    try:
        ask = next(flow)
        while True:
            try:
                answer = getattr(client.callbacks, ask.method)(*ask.arguments)
            except BaseException as error:  # noqa: BLE001 - the flow sees whatever it is, and lets it go on
                ask = flow.throw(error)
            else:
                ask = flow.send(answer)
    except StopIteration as end:
        return _applied(end)


async def drive_async(flow: Flow, client: AsyncThingSpaceClient) -> Applied:
    """Make the calls that a flow asks for; see `drive`."""
    try:
        ask = next(flow)
        while True:
            try:
                answer = await getattr(client.callbacks, ask.method)(*ask.arguments)
            except BaseException as error:  # noqa: BLE001 - as above, a cancellation too
                ask = flow.throw(error)
            else:
                ask = flow.send(answer)
    except StopIteration as end:
        return _applied(end)


def flaw_of(account: str, url: str | None, *, allow_http: bool) -> str | None:
    """Return why this URL can certainly not be registered for this account, None where nothing says so.

    Args:
        account: The account.
        url: The URL that should stand, None for none.
        allow_http: Whether http to this machine is admitted.
    """
    try:
        check_account(account)
        if url is not None:
            check_callback_url(url, allow_http=allow_http)
    except (TypeError, ValueError) as error:
        return str(error)
    return None


def _applied(end: StopIteration) -> Applied:
    applied = end.value
    assert isinstance(applied, Applied)
    return applied


def _write(step: Step, audit: Audit) -> Flow:
    writing = audit.begun(
        step.account, step.action, before=step.registered, after=step.desired, credentials=step.credentials
    )
    try:
        yield _ask(step)
    except BaseException as error:
        writing.ended("failed", error=str(error) or type(error).__name__, refused=_is_refusal(error) or None)
        raise
    try:
        stands = (yield Ask("list_registered_callbacks", step.account)).url
    except BaseException as error:
        writing.ended("failed", error=str(error) or type(error).__name__)
        raise
    if stands == step.desired:
        writing.ended("done")
        return Applied(step=step, outcome="done", stands=stands)
    writing.ended("differs", stands=stands)
    wanted, found = (mask_url_token(url) if url else "nothing" for url in (step.desired, stands))
    why = f"{wanted} was to stand, but {found} was read back"
    return Applied(step=step, outcome="differs", stands=stands, why=why)


def _is_refusal(error: BaseException) -> bool:
    """Tell whether a write was certainly not made: what may have reached the provider unanswered is doubtful."""
    if isinstance(error, (RequestNotSentError, CredentialsError)):
        return True
    return isinstance(error, AnsweredError) and error.status_code is not None and error.status_code in _REFUSALS


def _ask(step: Step) -> Ask:
    if step.desired is None:
        return Ask("deregister_callback", step.account)
    # Both replace, as documented; what PUT does where nothing stands is not.
    return Ask("register_callback" if step.registered is None else "update_callback", step.account, step.desired)
