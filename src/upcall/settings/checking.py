"""What a settings file may hold, decided without I/O: each mistake with the place where it stands."""

from __future__ import annotations

import difflib
import math
import re
from functools import cache
from typing import TYPE_CHECKING, Any, Final, TypeVar
from urllib.parse import urlsplit

import msgspec

from upcall.settings.credentials import CREDENTIAL_FIELDS
from upcall.settings.lines import Place
from upcall.settings.places import is_profile_file
from upcall.settings.tables import Alerts, Client, Delivery, File, References
from upcall.settings.values import TOKEN_PLACEHOLDER, Account, GuardSettings, ReconcileSettings
from upcall.thingspace import ENVIRONMENTS, PROFILES, check_account, check_callback_url

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    Blame = Callable[["Finding"], None]

__all__ = ["Finding", "checked_file", "wrong_alert_url"]

T = TypeVar("T", bound=msgspec.Struct)

_PLACEHOLDER: Final = re.compile(r"\{[^{}]*\}")
_SAMPLE_TOKEN: Final = "a-token-of-43-characters-0123456789-abcdefg"  # noqa: S105 - stands for one


class Finding(msgspec.Struct, frozen=True):
    """Say what is wrong, and where it stands in the document.

    Args:
        place: The keys and indexes that lead there.
        text: What is wrong, and what is allowed.
        hint: What to do about it, None where the text says so.
        account: Whose ``[[accounts]]`` table it is, None where it is none's or that has no name.
        first: Another place that belongs to it: where the same account was named before.
    """

    place: Place
    text: str
    hint: str | None = None
    account: str | None = None
    first: Place | None = None


class _Table(msgspec.Struct, frozen=True):
    """Say which table is looked at: where it stands, what it is called, and whose it is."""

    place: Place
    title: str
    account: str | None = None


def checked_file(document: dict[str, Any]) -> tuple[File, list[Finding]]:
    """Make of a document what can be made of it, and say what else is wrong.

    Args:
        document: What stands in a settings file.

    Returns:
        The tables without what cannot be used, and the findings; it is sound where there are none.
    """
    findings: list[Finding] = []
    blame = findings.append
    _blame_unknown(document, File, _Table((), "the settings file"), blame)
    file = File(
        client=_one(document, "client", Client, blame),
        delivery=_one(document, "delivery", Delivery, blame),
        alerts=_one(document, "alerts", Alerts, blame),
        guard=_one(document, "guard", GuardSettings, blame),
        reconcile=_one(document, "reconcile", ReconcileSettings, blame),
        credentials=_credentials(document.get("credentials", {}), blame),
        accounts=_accounts(document, blame),
    )
    findings += [*_client_findings(file.client), *_alert_findings(file.alerts), *_profile_findings(file.delivery)]
    return file, findings


def wrong_alert_url(url: str) -> str | None:
    """Return what is wrong with a URL that alerts are to be posted to, None where nothing is; it is not shown."""
    try:
        parts = urlsplit(url)
        host = parts.hostname
    except ValueError:
        return "cannot be read as a URL"
    if parts.scheme not in {"http", "https"} or not host:
        return "is no URL such as https://hooks.example.com/path"
    if parts.username is not None or parts.password is not None:
        return "holds a user name, which is not sent: let the secret stand in the path"
    return None


# --- Tables ----------------------------------------------------------------------------------------------------------


def _one(document: dict[str, Any], name: str, kind: type[T], blame: Blame) -> T:
    table = document.get(name, {})
    if not isinstance(table, dict):
        blame(Finding((name,), f"`{name}` is a table: write [{name}] and its keys under it"))
        return kind()
    return kind(**_given(table, kind, _Table((name,), f"[{name}]"), blame))


def _given(table: dict[str, Any], kind: type[msgspec.Struct], where: _Table, blame: Blame) -> dict[str, Any]:
    """Return the values of a table that can be used."""
    _blame_unknown(table, kind, where, blame)
    given = {}
    for field in _fields(kind):
        if field.name not in table:
            continue
        try:
            value = msgspec.convert(table[field.name], field.type)
        except msgspec.ValidationError as error:
            blame(_misfit(error, where, field.name))
            continue
        if (text := _out_of_range(field.name, value)) is None:
            given[field.name] = value
        else:
            blame(Finding((*where.place, field.name), text, account=where.account))
    return given


@cache
def _fields(kind: type[msgspec.Struct]) -> tuple[msgspec.structs.FieldInfo, ...]:
    return msgspec.structs.fields(kind)


_EXPECTED: Final = re.compile(r"Expected `([^`]+?)(?: \| null)?`, got `([^`]+)`")
_KINDS: Final = {
    "float": "a number",
    "int": "a whole number",
    "str": "text",
    "bool": "true or false",
    "array": "a list",
    "object": "a table",
}
"""How msgspec's names of kinds are told."""


def _misfit(error: msgspec.ValidationError, where: _Table, key: str) -> Finding:
    """Tell of a value that is of the wrong type, which msgspec does without showing it."""
    text, _, below = str(error).partition(" - at `$")
    place = (*where.place, key, *(int(index) for index in re.findall(r"\[(\d+)\]", below)))
    shown = "".join(f"[{step}]" if isinstance(step, int) else f".{step}" for step in place).removeprefix(".")
    if found := _EXPECTED.match(text):
        wanted, given = (_KINDS.get(kind, kind) for kind in found.groups())
        text = f"has to be {wanted}, not {given}"
    hint = "Write seconds, without quotes, such as 300." if key.endswith("_seconds") else None
    return Finding(place, f"`{shown}` {text[:1].lower()}{text[1:]}", hint, where.account)


def _out_of_range(name: str, value: Any) -> str | None:
    """Return what is wrong with a number, None where nothing is."""
    if isinstance(value, float) and not (value > 0 and math.isfinite(value)):
        return f"`{name}` is {value:g}, and has to be {'finite' if value > 0 else 'more than 0'}"
    if name == "max_retries" and value is not None and value < 0:
        return f"`{name}` is {value}, and has to be 0 or more"
    return None


def _blame_unknown(table: dict[str, Any], kind: type[msgspec.Struct], where: _Table, blame: Blame) -> None:
    known = kind.__struct_fields__
    for key in table:
        if key in known:
            continue
        hint = _suggested(key, known)
        if kind is References and key in CREDENTIAL_FIELDS:
            hint = f"No secret stands in this file: `{key}_env` names its variable, `{key}_file` its file."
        blame(Finding((*where.place, key), f"there is no `{key}` in {where.title}", hint, where.account))


def _suggested(given: str, known: Iterable[str]) -> str:
    """Say which known word is near, else which there are."""
    words = sorted(known)
    near = difflib.get_close_matches(given, words, n=1)
    return f"Did you mean `{near[0]}`?" if near else f"Known: {', '.join(f'`{word}`' for word in words)}."


# --- Single tables ---------------------------------------------------------------------------------------------------


def _client_findings(client: Client) -> Iterator[Finding]:
    if client.base_url and client.environment:
        text = "it gives `client.base_url` and `client.environment`, which contradict each other"
        yield Finding(("client", "environment"), text, "Give one of them.")
    if client.environment and client.environment not in ENVIRONMENTS:
        text = f"there is no environment {client.environment!r}"
        yield Finding(("client", "environment"), text, _suggested(client.environment, ENVIRONMENTS))


def _profile_findings(delivery: Delivery) -> Iterator[Finding]:
    if delivery.profile not in PROFILES and not is_profile_file(delivery.profile):
        text = f"there is no delivery profile {delivery.profile!r}"
        hint = f"{_suggested(delivery.profile, PROFILES)} A file that ends in .toml may be one."
        yield Finding(("delivery", "profile"), text, hint)


def _alert_findings(alerts: Alerts) -> Iterator[Finding]:
    given = [name for name in Alerts.__struct_fields__ if getattr(alerts, name) is not None]
    if len(given) > 1:
        named = " and ".join(f"`{name}`" for name in given)
        yield Finding(("alerts", given[1]), f"[alerts] has {named}, and there is one URL", "Give one of them.")
    if alerts.url is not None and (text := wrong_alert_url(alerts.url)) is not None:
        yield Finding(("alerts", "url"), f"`alerts.url` {text}")


def _credentials(tables: Any, blame: Blame) -> dict[str, References]:
    if not isinstance(tables, dict):
        blame(Finding(("credentials",), "`credentials` is made of tables: write [credentials.NAME]"))
        return {}
    found = {}
    for name, table in tables.items():
        if isinstance(table, dict):
            where = _Table(("credentials", name), f"[credentials.{name}]")
            found[name] = References(**_given(table, References, where, blame))
        else:
            hint = "Write [credentials.default], or another name, and its keys under it."
            blame(Finding(("credentials", name), f"`credentials.{name}` is no table", hint))
    return found


# --- Accounts --------------------------------------------------------------------------------------------------------


def _accounts(document: dict[str, Any], blame: Blame) -> tuple[Account, ...]:
    tables = document.get("accounts", [])
    if not isinstance(tables, list):
        blame(Finding(("accounts",), "`accounts` is a list of tables: write [[accounts]], in double brackets"))
        return ()
    named = document.get("credentials", {})
    found: dict[str, tuple[int, Account]] = {}
    for index, table in enumerate(tables):
        account = _account(table, index, blame)
        if account is None:
            continue
        if account.name in found:
            first = ("accounts", found[account.name][0], "name")
            text = f"it names the account {account.name} twice"
            blame(Finding(("accounts", index, "name"), text, "Leave one out.", account.name, first))
            continue
        found[account.name] = (index, account)
        for finding in _account_findings(account, index, named if isinstance(named, dict) else {}):
            blame(finding)
    return tuple(account for _, account in found.values())


def _account(table: Any, index: int, blame: Blame) -> Account | None:
    """Return what can be used of an account's table, None where its name cannot."""
    place = ("accounts", index)
    if not isinstance(table, dict):
        blame(Finding(place, "an account is a table: write [[accounts]] and its keys under it"))
        return None
    name = table.get("name")
    own = name if isinstance(name, str) else None
    rest = {key: value for key, value in table.items() if key != "name"}
    given = _given(rest, Account, _Table(place, "[[accounts]]", own), blame)
    if "name" not in table:
        if not difflib.get_close_matches("name", table):  # else that key was blamed, which is all that is wrong
            hint = 'Write name = "0000123456-00001", as the provider does.'
            blame(Finding(place, "this account has no `name`", hint))
        return None
    try:
        check_account(name)
    except (TypeError, ValueError) as error:
        quotes = 'Write it in quotes: name = "0000123456-00001".' if own is None else None
        blame(Finding((*place, "name"), str(error), quotes, own))
    return None if own is None else Account(name=own, **given)


def _account_findings(account: Account, index: int, named: dict[str, Any]) -> Iterator[Finding]:
    place, name = ("accounts", index), account.name
    if account.credentials is not None and account.credentials not in named:
        text = f"there is no table [credentials.{account.credentials}], which the account {name} asks for"
        hint = _suggested(account.credentials, named) if named else None
        yield Finding((*place, "credentials"), text, hint, name)
    if account.url is not None and (wrong := _url_text(account.url)) is not None:
        yield Finding((*place, "url"), f"the url of the account {name} cannot be used: {wrong}", account=name)
    for number, label in enumerate(account.labels):
        if not label.strip():
            yield Finding((*place, "labels", number), f"the account {name} has an empty label", account=name)


def _url_text(template: str) -> str | None:
    """Return what is wrong with a URL whatever its token is, None where nothing is."""
    for placeholder in _PLACEHOLDER.findall(template):
        if placeholder != TOKEN_PLACEHOLDER:
            return f"{placeholder} means nothing; {TOKEN_PLACEHOLDER} stands for the listener's token"
    if template.count(TOKEN_PLACEHOLDER) > 1:
        return f"{TOKEN_PLACEHOLDER} stands in it more than once"
    try:
        # That http goes to this machine only is known here; whether it may go there, a command is told.
        check_callback_url(template.replace(TOKEN_PLACEHOLDER, _SAMPLE_TOKEN), allow_http=True)
    except ValueError as error:
        return str(error)
    # Elsewhere no log, alert or audit would mask it: see `upcall.redact.mask_url_token`.
    is_last = urlsplit(template).path.rstrip("/").rpartition("/")[2] == TOKEN_PLACEHOLDER
    if TOKEN_PLACEHOLDER in template and not is_last:
        return f"{TOKEN_PLACEHOLDER} is the whole last segment of the path: https://host/callbacks/{TOKEN_PLACEHOLDER}"
    return None
