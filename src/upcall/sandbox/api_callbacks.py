"""The four callback operations: ``/fota/v2/callbacks/{account}``."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from upcall.sandbox.http import Answer, invalid_parameter, json_answer
from upcall.sandbox.models import CallbackBody, Success
from upcall.thingspace import check_callback_url

if TYPE_CHECKING:
    from upcall.sandbox.app import Sandbox
    from upcall.sandbox.http import Request

__all__ = ["deregister", "register", "show"]


async def show(sandbox: Sandbox, _: Request, account: str) -> Answer:
    """Answer GET: the registered URL, or nothing at all where none is.

    Source: the empty answer is documented for V1 and V3, inferred for V2.
    """
    url = sandbox.access.listener(account)
    return Answer(200) if url is None else json_answer(CallbackBody(url))


async def register(sandbox: Sandbox, request: Request, account: str) -> Answer:
    """Answer POST and PUT: register a URL in the place of any other.

    Source: "Register" and "Modify a callback listener URL V2" (documented). That PUT with nothing registered creates
        is assumed.
    """
    url, allow_http = request.json_object().get("url"), sandbox.options.allow_http
    try:
        checked = check_callback_url(url, allow_http=allow_http)
    except (TypeError, ValueError) as error:
        refusal = invalid_parameter(f"Invalid callback url: {error}")
        is_http = isinstance(url, str) and url.lower().startswith("http:")
        note = "--allow-http lets listeners on this machine use http" if is_http and not allow_http else ""
        return msgspec.structs.replace(refusal, note=note)
    sandbox.register(account, checked)
    await sandbox.store.flush()
    return json_answer(CallbackBody(checked))


async def deregister(sandbox: Sandbox, _: Request, account: str) -> Answer:
    """Answer DELETE: success, whether or not there was a listener.

    Source: "Deregister a callback listener" (documented); with nothing registered it is assumed.
    """
    if sandbox.deregister(account):
        await sandbox.store.flush()
    return json_answer(Success(success=True))
