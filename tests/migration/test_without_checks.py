"""Down to the schema that knows no checks, with checks under way."""

import pytest
from crowd import Crowd, honest, liar, new_crowd, reply
from database import Database, empty_database

from pairmill.ops.admin import migrate
from pairmill.ops.errors import UserError

BEFORE = "0005"
COUNTING = "select batch_id, n, attempt, sha256 from mill.current_download order by 1, 2"


def migrated(dsn: str) -> Crowd:
    migrate.upgrade(dsn)
    return new_crowd(Database(dsn), "ada", "bob")


def test_with_open_checks_nothing_that_counts_is_lost(server: str) -> None:
    with empty_database(server) as dsn:
        crowd = migrated(dsn)
        db = crowd.db
        assert crowd.work("ada")
        check = db.claim("download", "bob")
        assert check is not None
        before = db.rows(COUNTING)
        migrate.downgrade(dsn, BEFORE)
        assert db.rows(COUNTING) == before
        assert len(before) == 40
        # the check is nobody's work any more, and parked: not a download that was forgotten
        assert db.rows("select state, reason from mill.task where attempt = 2 and kind = 'download'") == [
            ("parked", "a check, and the schema before checks")
        ]  # fmt: skip
        migrate.upgrade(dsn)
        assert db.rows(COUNTING) == before
        db.close()


def test_a_check_that_awaits_acceptance_is_waited_for(server: str) -> None:
    """Or its rows would count, since nothing would say that they are a check's."""
    with empty_database(server) as dsn:
        crowd = migrated(dsn)
        db = crowd.db
        assert crowd.work("ada")
        check = db.claim("download", "bob")
        assert check is not None
        queue, _ = db.queue("download", "bob")
        queue.submit_download(check.lease_id, 0, reply(queue.urls(check.lease_id), liar("!")))
        queue.complete(check.lease_id)
        before = db.rows(COUNTING)
        with pytest.raises(UserError, match="a check awaits acceptance: stop the download workers"):
            migrate.downgrade(dsn, BEFORE)
        assert migrate.current(db.admin) == migrate.revisions()[-1]
        db.accept_all()
        migrate.downgrade(dsn, BEFORE)
        assert db.rows(COUNTING) == before
        db.close()


def test_a_lease_with_canaries_is_waited_for(server: str) -> None:
    """Or its numbers would be taken for the batch's: each answer would be another URL's."""
    with empty_database(server) as dsn:
        crowd = migrated(dsn)
        db = crowd.db
        db.admin.execute(
            "insert into mill.canary (url, by_admin) values ('http://c.example/', true)"
        )
        claim = db.claim("download", "ada")
        assert claim is not None
        queue, _ = db.queue("download", "ada")
        given = queue.urls(claim.lease_id)
        assert len(given) == 41
        with pytest.raises(UserError, match="leases with canaries"):
            migrate.downgrade(dsn, BEFORE)
        queue.release(claim.lease_id)
        migrate.downgrade(dsn, BEFORE)
        crowd.work("bob", honest)
        wrong = [
            url for url, found in db.rows("select url, outcome = 0 from mill.current_download join mill.pair using (batch_id, n)")
            if found != (honest(url)[1] != "")
        ]  # fmt: skip
        assert wrong == []
        db.close()
