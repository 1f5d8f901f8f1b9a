"""Handlers: what may be registered, under which name, and what each of them wants."""

from __future__ import annotations

import functools
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from upcall.dispatch import HandlerTable
from upcall.inbox import stored_event
from upcall.testing import callback
from upcall.thingspace import parse_callback


@pytest.fixture
def table():
    return HandlerTable()


def on_event(event):
    pass


def on_device(event, device):
    pass


def wants(table, **facts):
    return [handler.wants(parse_callback(callback(**facts))) for handler in table.handlers]


class TestRegistering:
    def test_the_function_stays_what_it_is(self, table):
        """A decorated function can be called and tested as before."""
        assert table.on()(on_event) is on_event
        assert table.on_device("UpgradeFailed")(on_device) is on_device

    @pytest.mark.parametrize("decorator", ["on", "on_device"])
    def test_forgotten_parentheses(self, table, decorator):
        """A bare decorator is refused with the form to write, not registered as a filter that never matches."""
        with pytest.raises(TypeError, match=rf"@app\.{decorator}\('…'\), not function"):
            getattr(table, decorator)(on_event)
        assert table.handlers == []

    @pytest.mark.parametrize("word", [1, None, b"upgradeProgress", ["upgradeProgress"]])
    def test_words_that_are_no_strings(self, table, word):
        """A kind or status that is no string is refused by its type."""
        with pytest.raises(TypeError, match=type(word).__name__):
            table.on(word)
        with pytest.raises(TypeError, match=type(word).__name__):
            table.on_device(word)

    @pytest.mark.parametrize(
        "function",
        [lambda: None, lambda event, device: None, lambda event, *, more: None, 5],
        ids=["none", "two", "keyword", "no-function"],
    )
    def test_what_cannot_be_called_with_an_event(self, table, function):
        """A function that its callbacks could not be given to is refused at registration."""
        with pytest.raises(TypeError, match=r"must be callable as handler\(event\)"):
            table.on()(function)

    @pytest.mark.parametrize("function", [lambda: None, lambda event: None, lambda a, b, c: None])
    def test_what_cannot_be_called_with_a_device(self, table, function):
        """A device handler takes the event and the device, or is refused."""
        with pytest.raises(TypeError, match=r"must be callable as handler\(event, device\)"):
            table.on_device()(function)

    def test_more_arguments_with_defaults(self, table):
        """A function may take more than it is given, and any callable will do."""
        table.on()(lambda event, retries=3, **options: None)
        table.on_device()(functools.partial(on_device))
        table.on()(print)
        assert len(table.handlers) == 3

    def test_generators(self, table):
        """A function that yields would return at once without having run, and is refused."""

        def plain(event):
            yield event

        async def asynchronous(event):
            yield event

        for function in (plain, asynchronous):
            with pytest.raises(TypeError, match="contains yield"):
                table.on()(function)

    def test_one_name_twice(self, table):
        """Work is kept under a handler's name, so a name is taken once."""
        table.on("upgradeProgress")(on_event)
        with pytest.raises(ValueError, match=r"on_event is registered twice"):
            table.on("upgradeFinished")(on_event)

    def test_names_are_module_and_qualified_name(self, table):
        """A handler's name is where it is defined, so it is the same after a restart."""

        class Tickets:
            def open(self, event):
                pass

        table.on()(on_event)
        table.on()(Tickets().open)
        assert [handler.name for handler in table.handlers] == [
            f"{__name__}.on_event",
            f"{__name__}.TestRegistering.test_names_are_module_and_qualified_name.<locals>.Tickets.open",
        ]

    def test_a_script_and_its_import_give_one_name(self, table, monkeypatch):
        """Run as a script, a handler has the name that it has when the script is imported."""
        monkeypatch.setattr(sys.modules["__main__"], "__file__", "/srv/fleet/handlers.py", raising=False)

        def local(event):
            pass

        local.__module__ = "__main__"
        local.__qualname__ = "local"
        table.on()(local)
        assert table.handlers[0].name == "handlers.local"

    @pytest.mark.parametrize("account", [242078689, True])
    def test_an_account_that_is_a_number(self, table, account):
        """An account given as a number has lost its zeros, and is refused."""
        with pytest.raises(TypeError):
            table.on(account=account)(on_event)

    def test_figures_out_of_range(self, table):
        """A retry figure that makes no sense is refused where it is written."""
        with pytest.raises(ValueError, match="max_attempts"):
            table.on(max_attempts=0)
        with pytest.raises(ValueError, match="backoff_seconds"):
            table.on_device(backoff_seconds=-1)
        for decorator in (table.on, table.on_device):
            with pytest.raises(ValueError, match="concurrency must be at least 1, not 0"):
                decorator(concurrency=0)

    def test_which_handlers_are_awaited(self, table):
        """Async functions, methods, partials and callable objects are awaited; the others run in threads."""

        async def asynchronous(event):
            pass

        class Asynchronous:
            async def __call__(self, event):
                pass

        class Plain:
            def __call__(self, event):
                pass

        for function in (asynchronous, functools.partial(asynchronous), Asynchronous(), on_event, Plain()):
            table.on()(function)
        assert [handler.is_async for handler in table.handlers] == [True, True, True, False, False]


class TestWanting:
    @pytest.mark.parametrize("word", ["upgradeProgress", "UPGRADEPROGRESS", "upgradeprogress"])
    def test_kinds_in_any_case(self, table, word):
        """A kind may be written in any case."""
        table.on(word)(on_event)
        assert wants(table) == [[""]]
        assert wants(table, kind="upgradeFinished") == [[]]

    def test_unknown_kinds(self, table):
        """A kind that nobody documented is matched as it is written."""
        table.on("licenseExpired")(on_event)
        assert wants(table, kind="licenseExpired") == [[""]]
        assert wants(table, kind="upgradeProgress") == [[]]

    @pytest.mark.parametrize("word", ["UpgradeFailed", "UpgradedFailed", "upgrade_failed", "upgrade failed"])
    @pytest.mark.parametrize("said", ["UpgradeFailed", "UpgradedFailed"])
    def test_statuses_in_any_spelling(self, table, word, said):
        """A device state is one, however the handler or the provider writes it."""
        table.on_device(word)(on_device)
        assert wants(table, devices={"d1": said, "d2": "Accepted"}) == [["d1"]]

    def test_no_words_mean_all(self, table):
        """Without words a handler wants every kind and every device, and what is no JSON too."""
        table.on()(on_event)
        table.on_device()(on_device)
        assert wants(table, devices={"d1": "Odd", "d2": "Accepted"}) == [[""], ["d1", "d2"]]
        assert [handler.wants(parse_callback(b"\xff")) for handler in table.handlers] == [[""], []]

    def test_several_words(self, table):
        """Any of the words will do."""
        table.on("upgradeScheduled", "upgradeFinished")(on_event)
        assert [wants(table, kind=kind) for kind in ("upgradeScheduled", "upgradeProgress", "upgradeFinished")] == [
            [[""]], [[]], [[""]],
        ]  # fmt: skip

    def test_one_account_only(self, table):
        """An account's handler sees that account's callbacks, by the body's account or else the token's."""
        table.on(account="0000000001-00001")(on_event)
        table.on_device(account="0000000001-00001")(on_device)
        assert wants(table, account="0000000001-00001", devices={"d1": "Accepted"}) == [[""], ["d1"]]
        assert wants(table, account="0000000002-00001", devices={"d1": "Accepted"}) == [[], []]
        unnamed = b'{"type":"upgradeProgress"}'
        assert [h.wants(stored_event(1, 1, "0000000001-00001", "", unnamed)) for h in table.handlers] == [[""], []]
        assert [h.wants(stored_event(1, 1, None, "", unnamed)) for h in table.handlers] == [[], []]

    def test_what_the_guard_says_has_to_be_named(self, table):
        """An event of the guard's goes to handlers that name its kind, of that account, and to no others."""
        table.on("registration.drift")(on_event)
        table.on()(lambda event: None)
        table.on("upgradeProgress")(print)
        table.on_device()(on_device)

        @table.on("registration.drift", account="0000000002-00001")
        def another_account(event):
            pass

        body = callback("registration.drift", account="0000000001-00001", devices={"d1": "Accepted"})
        event = stored_event(1, 1, None, "", body, "guard")
        assert [handler.wants(event) for handler in table.handlers] == [[""], [], [], [], []]

    @pytest.mark.parametrize("origin", ["received", "reconciled"])
    def test_nobody_else_speaks_for_the_guard(self, table, origin):
        """A callback that was sent with one of the guard's names never reaches who asked for that name."""
        table.on("registration.drift", "registration.more", "upgradeProgress")(on_event)
        table.on()(lambda event: None)
        for kind in ("registration.drift", "registration.more"):
            event = stored_event(1, 1, None, "", callback(kind), origin)
            assert [handler.wants(event) for handler in table.handlers] == [[], [""]]

    @given(body=st.binary() | st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
        lambda inner: st.lists(inner) | st.dictionaries(
            st.sampled_from(["type", "accountName", "upgradeProgress", "deviceList", "deviceId", "status"]), inner
        ),
    ).map(lambda value: __import__("json").dumps(value).encode()))  # fmt: skip
    def test_any_body_can_be_asked_about(self, body):
        """Whatever a body holds, a handler wants it or not, and is called with what it wanted."""
        table = HandlerTable()
        table.on("upgradeProgress")(on_event)
        table.on_device("UpgradeFailed")(on_device)
        table.on_device(account="0000000001-00001")(lambda event, device: None)
        event = stored_event(1, 1, "0000000001-00001", "", body)
        for handler in table.handlers:
            for device_id in handler.wants(event):
                arguments = handler.arguments(event, device_id)
                assert arguments[0] is event
                assert [device.device_id for device in arguments[1:]] == ([device_id] if handler.per_device else [])


class TestArguments:
    def test_a_device_that_is_named_twice(self, table):
        """Of two entries for one device the handler gets the last that it wanted."""
        table.on_device("UpgradeFailed")(on_device)
        body = (
            b'{"type":"upgradeProgress","upgradeProgress":{"id":"c1","deviceList":['
            b'{"deviceId":"d1","status":"UpgradeFailed","resultReason":"one"},'
            b'{"deviceId":"d1","status":"UpgradeFailed","resultReason":"two"},'
            b'{"deviceId":"d1","status":"UpgradePending"}]}}'
        )
        _, device = table.handlers[0].arguments(parse_callback(body), "d1")
        assert device.reason == "two"

    def test_work_from_before_the_states_were_changed(self, table):
        """Work that an earlier release of the handler asked for still reaches it, with the device it was about."""
        table.on_device("UpgradeSuccess")(on_device)
        event = parse_callback(callback(devices={"d1": "UpgradeFailed"}))
        assert table.handlers[0].arguments(event, "d1")[1].status == "UpgradeFailed"

    def test_work_of_a_handler_that_took_whole_callbacks(self, table):
        """Work that has no device fails with a reason where the handler now takes devices."""
        table.on_device()(on_device)
        with pytest.raises(LookupError, match="names no device"):
            table.handlers[0].arguments(parse_callback(callback()), "")
