"""What every inbox promises a handler that writes through its transaction: effect and end of work are one."""

from __future__ import annotations

import sqlite3

import pytest

from upcall.errors import StoreError
from upcall.inbox import Selection

OWN_TABLES = ("callbacks", "deliveries", "events", "campaigns", "devices", "work", "subscribers", "tokens", "cursors")


@pytest.fixture
def inbox(store, make):
    inbox = store.open()
    inbox.append(make.arrivals(3))
    make.enrolled(inbox)
    return inbox


def write(inbox, item, now, *statements, owner="owner"):
    with inbox.finish(item.id, owner, now) as transaction:
        for statement in statements:
            transaction.execute(statement)


def rows(inbox, make, table):
    """Return what a table of the handler's holds, read through a transaction that is then given up."""
    (item,) = make.take(inbox, owner="reader", limit=1)
    try:
        with inbox.finish(item.id, "reader", make.now) as transaction:
            found = transaction.execute(f"SELECT * FROM {table}").fetchall()
            raise LookupError
    except LookupError:
        inbox.release(["reader"], make.now, uncounted=True)
    return found


class TestEffect:
    def test_the_effect_and_the_end_are_kept_together(self, store, inbox, make):
        """After the body the work is done and what it wrote is there, for the next process too."""
        (item,) = make.take(inbox, limit=1)
        with inbox.finish(item.id, "owner", make.now + 5) as transaction:
            transaction.execute("CREATE TABLE effects (callback_id INTEGER, note TEXT)")
            transaction.execute("INSERT INTO effects VALUES (?, ?)", (item.callback_id, "kept"))
            transaction.executemany("INSERT INTO effects VALUES (?, ?)", [(7, "a"), (8, "b")])
        (work,) = inbox.work(item.callback_id)
        assert (work.state, work.attempts, work.finished_at, work.error) == ("done", 1, make.now + 5, None)
        inbox.close()
        again = store.open()
        assert rows(again, make, "effects") == [(item.callback_id, "kept"), (7, "a"), (8, "b")]
        assert again.work(item.callback_id) == [work]

    def test_a_body_that_writes_nothing_ends_the_work(self, inbox, make):
        """A handler that found nothing to write is done all the same."""
        (item,) = make.take(inbox, limit=1)
        write(inbox, item, make.now)
        assert inbox.work(item.callback_id)[0].state == "done"
        assert inbox.owners() == []

    def test_what_it_wrote_can_be_read_in_it(self, inbox, make):
        """A handler reads its own writes, and leaves cursors open without harm."""
        for item in make.take(inbox, limit=2):
            with inbox.finish(item.id, "owner", make.now) as transaction:
                transaction.execute("CREATE TABLE IF NOT EXISTS effects (n INTEGER)")
                transaction.executemany("INSERT INTO effects VALUES (?)", [(n,) for n in range(50)])
                cursor = transaction.execute("SELECT n FROM effects")
                assert cursor.fetchone() == (0,)  # 49 rows are left unread
        assert [record.state for record in inbox.callbacks()] == ["done", "done", "pending"]
        assert len(rows(inbox, make, "effects")) == 100

    def test_an_exception_keeps_nothing(self, inbox, make):
        """Where the body raises, nothing that it wrote is there and the work is still the owner's."""
        one, two, _ = make.take(inbox)
        write(inbox, one, make.now, "CREATE TABLE effects (n INTEGER)")
        with pytest.raises(sqlite3.OperationalError):
            write(inbox, two, make.now, "INSERT INTO effects VALUES (1)", "CREATE TABLE more (n INTEGER)", "no SQL")
        (work,) = inbox.work(two.callback_id)
        assert (work.state, work.attempts, work.finished_at) == ("leased", 1, None)
        assert inbox.owners() == ["owner"]
        write(inbox, two, make.now, "INSERT INTO effects VALUES (2)")
        inbox.release(["owner"], make.now)
        assert rows(inbox, make, "effects") == [(2,)]
        with pytest.raises(sqlite3.Error):
            rows(inbox, make, "more")

    def test_a_statement_that_fails_may_be_survived(self, inbox, make):
        """A handler that catches the failure of a statement keeps what it wrote before and after it."""
        (item,) = make.take(inbox, limit=1)
        with inbox.finish(item.id, "owner", make.now) as transaction:
            transaction.execute("CREATE TABLE effects (n INTEGER PRIMARY KEY)")
            transaction.execute("INSERT INTO effects VALUES (1)")
            with pytest.raises(sqlite3.IntegrityError):
                transaction.execute("INSERT INTO effects VALUES (1)")
            transaction.execute("INSERT INTO effects VALUES (2)")
        assert rows(inbox, make, "effects") == [(1,), (2,)]

    def test_an_effect_is_kept_once_over_a_lost_lease(self, store, inbox, make):
        """Of two workers that both did the work, the one that holds the lease keeps its effect, the other none."""
        late, *_ = make.take(inbox, owner="late", lease_seconds=1)
        item, *_ = make.take(store.open(), owner="new", now=make.now + make.second)
        assert item.id == late.id
        for owner in ("late", "new", "new", "late"):
            with inbox.finish(item.id, owner, make.now + 2 * make.second) as transaction:
                if transaction is not None:
                    transaction.execute("CREATE TABLE effects (owner TEXT)")
                    transaction.execute("INSERT INTO effects VALUES (?)", (owner,))
        inbox.release(["new"], make.now)
        assert rows(inbox, make, "effects") == [("new",)]

    def test_the_order_goes_on_after_it(self, store, make):
        """Ended through a transaction, a piece of ordered work lets the next one go."""
        inbox = store.fresh().open()
        inbox.append(
            [make.report(campaign_id="c1", status=status) for status in ("CampaignScheduled", "CampaignEnded")]
        )
        make.enrolled(inbox, make.whole(ordered=True))
        for number in (1, 2):
            (item,) = make.take(inbox)
            assert item.callback_id == number
            write(inbox, item, make.now)
        inbox.close()


class TestLostLeases:
    @pytest.mark.parametrize("how", ["expired", "released", "settled", "finished", "never", "no such"])
    def test_without_a_lease_there_is_no_transaction(self, store, inbox, make, how):
        """An owner that does not hold the work is given nothing to write with, and changes nothing."""
        other = store.open()
        item, *_ = make.take(inbox, owner="somebody" if how == "never" else "owner", lease_seconds=1)
        if how == "expired":
            make.take(other, owner="new", now=make.now + make.second)
        if how == "released":
            other.release(["owner"], make.now)
        if how == "settled":
            make.settle(inbox, [item], "dead", error="no")
        if how == "finished":
            write(inbox, item, make.now)
        before = inbox.work(item.callback_id)
        with inbox.finish(item.id if how != "no such" else 1 << 40, "owner", make.now) as transaction:
            assert transaction is None
        assert inbox.work(item.callback_id) == before

    def test_a_lease_that_ran_out_and_nobody_took_is_still_held(self, inbox, make):
        """A handler that was slow ends its work, where nobody else has begun it."""
        (item,) = make.take(inbox, lease_seconds=1, limit=1)
        write(inbox, item, make.now + make.day)
        assert inbox.work(item.callback_id)[0].state == "done"

    def test_finished_work_can_be_replayed(self, inbox, make):
        """What ended through a transaction is work like any other."""
        (item,) = make.take(inbox, limit=1)
        write(inbox, item, make.now)
        assert inbox.replay(Selection(ids=(item.callback_id,)), make.now, reason="again") == 1
        assert [again.id for again in make.take(inbox, limit=1)] == [item.id]


class TestRefusals:
    @pytest.mark.parametrize("table", OWN_TABLES)
    @pytest.mark.parametrize("statement", ["DELETE FROM {}", "DROP TABLE {}", "ALTER TABLE {} ADD COLUMN mine TEXT"])
    def test_own_tables_are_refused(self, inbox, make, table, statement):
        """A handler cannot change Upcall's own tables, and its failed attempt changes nothing."""
        (item,) = make.take(inbox, limit=1)
        before = (inbox.ledger(), inbox.callbacks(), inbox.work(item.callback_id))
        with pytest.raises(sqlite3.Error), inbox.finish(item.id, "owner", make.now) as transaction:
            transaction.execute(statement.format(table))
        assert (inbox.ledger(), inbox.callbacks(), inbox.work(item.callback_id)) == before

    @pytest.mark.parametrize(
        "statement", ["COMMIT", "END", "ROLLBACK", "BEGIN", "ATTACH ':memory:' AS other", "PRAGMA user_version = 9"]
    )
    def test_the_transaction_is_not_the_handlers_to_end(self, inbox, make, statement):
        """A handler can neither end the transaction nor weaken the store, and loses nothing by trying."""
        (item,) = make.take(inbox, limit=1)
        with inbox.finish(item.id, "owner", make.now) as transaction:
            transaction.execute("CREATE TABLE effects (n INTEGER)")
            with pytest.raises(sqlite3.Error):
                transaction.execute(statement)
            transaction.execute("INSERT INTO effects VALUES (1)")
        assert rows(inbox, make, "effects") == [(1,)]

    @pytest.mark.parametrize("store", ["sqlite"], indirect=True)
    @pytest.mark.parametrize(
        "statement",
        [
            "INSERT INTO WORK (callback_id, subscriber, device_id, state, due_at) VALUES (1, 'x', '', 'done', 0)",
            "UPDATE main.callbacks SET body = x''",
            "REPLACE INTO cursors VALUES ('projection', 9)",
            "WITH gone AS (SELECT 1) DELETE FROM deliveries",
            "CREATE TEMP TABLE work (id INTEGER)",
            "CREATE TEMP VIEW callbacks AS SELECT 1 AS id",
            "CREATE TRIGGER mine AFTER INSERT ON callbacks BEGIN SELECT RAISE(IGNORE); END",
            "CREATE TEMP TRIGGER mine BEFORE UPDATE ON main.work BEGIN SELECT RAISE(IGNORE); END",
            "CREATE UNIQUE INDEX mine ON callbacks (digest)",
            "DROP INDEX work_due",
            "UPDATE sqlite_sequence SET seq = 0",
            "UPDATE sqlite_master SET sql = ''",
            "ALTER TABLE work RENAME TO mine",
            "PRAGMA journal_mode = DELETE",
            "PRAGMA synchronous = OFF",
            "PRAGMA writable_schema = ON",
            "VACUUM",
            "SELECT token FROM tokens",
        ],
    )
    def test_no_way_round_leads_into_upcalls_own(self, inbox, make, statement):
        """Other spellings, triggers, shadows, the schema and the settings are as closed as the tables are."""
        item, *_ = make.take(inbox)
        before = (inbox.ledger(), inbox.callbacks(), inbox.work(item.callback_id))
        with pytest.raises(sqlite3.Error):
            write(inbox, item, make.now, statement)
        assert (inbox.ledger(), inbox.callbacks(), inbox.work(item.callback_id)) == before
        inbox.append([make.arrival(b"more")])
        assert inbox.check() == []

    @pytest.mark.parametrize("store", ["sqlite"], indirect=True)
    def test_a_trigger_of_the_handlers_reaches_no_further_than_it_does(self, inbox, make):
        """A trigger on the handler's own table cannot write where the handler cannot."""
        item, *_ = make.take(inbox)
        trigger = "CREATE TRIGGER mine AFTER INSERT ON effects BEGIN DELETE FROM work; END"
        with pytest.raises(sqlite3.Error):
            write(inbox, item, make.now, "CREATE TABLE effects (n)", trigger, "INSERT INTO effects VALUES (1)")
        assert inbox.work(item.callback_id)[0].state == "leased"

    def test_a_transaction_that_is_over_takes_nothing(self, inbox, make):
        """A handler that kept its transaction and writes after the end is told so, and nothing is written."""
        item, *_ = make.take(inbox)
        with inbox.finish(item.id, "owner", make.now) as transaction:
            transaction.execute("CREATE TABLE effects (n INTEGER)")
        with pytest.raises((StoreError, sqlite3.Error)):
            transaction.execute("INSERT INTO effects VALUES (1)")
        inbox.release(["owner"], make.now)
        assert rows(inbox, make, "effects") == []

    def test_the_store_is_as_free_after_it_as_before(self, store, inbox, make):
        """What was refused during the body is not refused to the inbox afterwards, nor does it stay locked."""
        for item in make.take(inbox, limit=2):
            with pytest.raises(sqlite3.Error), inbox.finish(item.id, "owner", make.now) as transaction:
                transaction.execute("DELETE FROM callbacks")
        store.open().append([make.arrival(b"more")])
        make.enrolled(inbox)
        assert len(make.take(inbox)) == 2
        assert inbox.check() == []
