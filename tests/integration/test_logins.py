"""Logins: what a disabled or stopped worker may do and is told, and the way back."""

import re
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import psycopg
import pytest
from psycopg.conninfo import conninfo_to_dict, make_conninfo

from pairmill.ops.admin import logins
from pairmill.ops.errors import UserError
from pairmill.schema.outcomes import Outcome
from pairmill.schema.scripts import sql
from pairmill.workers.errors import Refused, WorkerError
from pairmill.workers.heartbeat import Heartbeat, Held
from pairmill.workers.queue import Queue
from support.database import Database, outcomes
from support.line import wait_until

URLS = [f"http://h{i}.example/{i}.jpg" for i in range(20)]
STOPPED = "update mill.worker set disabled_at = now(), stopped_because = 'others found only 31 % of its downloads alike', agreement = 0.31 where name = 'ada'"


def test_worker_at_work_is_told_why_it_ends(db: Database) -> None:
    """Would catch: "it gives this login no rights now (is it being restored?)", and a worker that
    waits a day for that to pass."""
    db.extract(URLS)
    db.close_batches()
    ada, _ = db.queue("download", "ada")
    claim = db.claim("download", "ada")
    assert claim
    ada.serving, ada.patience = True, 60.0
    lost: list[bool] = []
    beat = Heartbeat(ada._dsn, ada.reach, 0.01)
    beat.hold(cast(Held, SimpleNamespace(lease_id=claim.lease_id, last_progress=1e12)), lambda: lost.append(True))  # fmt: skip
    db.admin.execute("select mill.disable_worker('ada', 'moves house')")
    beat.start()
    wait_until(lambda: bool(lost), "the heartbeat of a disabled worker")
    beat.stop()
    for call in (
        lambda: ada.heartbeat(claim.lease_id),
        lambda: ada.urls(claim.lease_id),
        lambda: ada.claim(1),
        lambda: ada.submit_download(claim.lease_id, 0, outcomes(range(5))),
        ada.register,
    ):
        with pytest.raises(Refused, match=r"^worker ada was disabled by an admin on [\d :-]+ UTC: moves house; ask the admin$"):  # fmt: skip
            call()
    told = ada.me()
    assert (told["state"], told["live_leases"]) == ("disabled", 1)


@pytest.mark.parametrize("how", ["select mill.disable_worker('ada', 'why')", STOPPED])
def test_enabled_worker_is_an_unproven_one(db: Database, how: str) -> None:
    """Would catch: a worker that is enabled and keeps the trust that it had, or no rights."""
    queue, _ = db.queue("download", "ada")
    db.admin.execute("update mill.worker set streak = 40, proven_at = now() where name = 'ada'")
    db.admin.execute(how)
    me = queue.me()
    assert me["state"] == ("stopped" if how == STOPPED else "disabled")
    with pytest.raises(Refused, match=re.escape(me["why"])):
        queue.register()
    assert db.value("select mill.enable_worker('ada')")
    kept = "select streak, proven_at, disabled_at, stopped_because, disabled_because from mill.worker where name = 'ada'"
    assert db.rows(kept) == [(0, None, None, None, None)]
    assert (queue.me()["state"], queue.register().kind) == ("active", "download")
    login = conninfo_to_dict(queue._dsn)["user"]
    assert db.value("select rolconnlimit from pg_roles where rolname = %s", login) == 8
    assert not db.value("select mill.enable_worker('nobody')")


def test_enabling_a_worker_that_may_work_changes_nothing(db: Database) -> None:
    db.login("download", "ada", checked=True)
    db.admin.execute("update mill.worker set streak = 40, proven_at = now()")
    assert db.value("select mill.enable_worker('ada')")
    assert db.rows("select streak, proven_at is null from mill.worker") == [(40, False)]


def test_closed_login_comes_back_too(db: Database) -> None:
    dsn = db.login("download", "ada")
    db.admin.execute("select mill.disable_worker('ada', p_close => true)")
    with pytest.raises(Refused, match="was closed: ask the admin"):
        Queue(dsn).register()
    db.admin.execute("select mill.enable_worker('ada')")
    assert Queue(dsn).register().name == "ada"


def test_grants_of_another_admin_go_too(db: Database) -> None:
    """Would catch: a membership that another admin granted, which PostgreSQL 16 keeps apart."""
    other, group = f"{db.admin.info.dbname}_admin", db.group("download")
    dsn = db.login("download", "ada")
    login = conninfo_to_dict(dsn)["user"]
    db.admin.execute(f"create role {other} createrole")
    db.admin.execute(f"grant {group} to {other} with admin option")
    db.admin.execute(f"set role {other}")
    db.admin.execute(f"grant {group} to {login}")
    db.admin.execute("reset role")
    db.admin.execute("select mill.disable_worker('ada')")
    assert not db.value("select pg_has_role(%s, %s, 'member')", login, group)
    assert Queue(dsn).me()["state"] == "disabled"


def test_me_has_shares_and_a_rank(db: Database) -> None:
    """Would catch: rows counted that were withdrawn, another's numbers, a rank by chance."""
    db.extract(URLS)
    db.close_batches()
    for name, rows, good in (("ada", range(5), True), ("bob", range(5, 20), False)):
        queue, _ = db.queue("download", name)
        claim = db.claim("download", name)
        assert claim
        queue.submit_download(claim.lease_id, 0, outcomes(rows, Outcome.SUCCESS if good else Outcome.TIMEOUT))  # fmt: skip
        if name == "ada":
            queue.release(claim.lease_id)
    db.accept_all()
    ada, bob = (db.queue("download", name)[0].me(with_rank=True) for name in ("ada", "bob"))
    assert (ada["rows_accepted"], ada["rows_accepted_last_day"], ada["success_share"]) == (5, 5, 1)
    assert (bob["rows_accepted"], bob["success_share"], bob["agreement"]) == (15, 0, None)
    assert [(each["rank"], each["ranked"]) for each in (ada, bob)] == [(2, 2), (1, 2)]
    assert ada["last_seen_at"] and ada["version"]
    db.admin.execute("insert into mill.withdrawn (submission_id, reason) select submission_id, 'x' from mill.submission where worker_id = (select worker_id from mill.worker where name = 'bob')")  # fmt: skip
    bob = db.queue("download", "bob")[0].me(with_rank=True)
    assert (bob["rows_accepted"], bob["rows_withdrawn"], bob["rank"], bob["ranked"]) == (0, 15, None, 1)  # fmt: skip


@pytest.mark.parametrize("kind", ["researcher", "admin"])
def test_login_that_is_no_workers_is_told_so(db: Database, kind: str) -> None:
    name = "r_" + db.admin.info.dbname[:20]
    db.admin.execute("select mill.add_researcher(%s, 'Ada', 'secret')", (name,))
    dsn = make_conninfo(db.dsn, user=name, password="secret") if kind == "researcher" else db.dsn
    with pytest.raises(WorkerError, match="this login is not a worker"):
        Queue(dsn).me()


def test_local_worker_keeps_its_login(
    db: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Would catch: a worker more at each start that the server does not let in."""
    db.admin.execute(sql("secure"))
    monkeypatch.setenv("PAIRMILL_HOME", str(tmp_path))

    def local() -> str:
        return logins.local_worker(cast(psycopg.Connection[Any], db.admin), "steward")

    dsn = local()
    assert local() == dsn
    name = Queue(dsn).me()["name"]
    db.admin.execute("select mill.rotate_worker(%s, 'another')", (name,))
    again = local()
    assert again != dsn and Queue(again).me()["name"] == name
    db.admin.execute("select mill.disable_worker(%s, 'enough')", (name,))
    with pytest.raises(UserError, match=rf"enough: `pairmill worker enable {name} --proven` lets"):
        local()
    db.admin.execute("select mill.enable_worker(%s)", (name,))
    assert local() == again
    assert db.value("select count(*) from mill.worker") == 1
