"""Settings of autovacuum that a partition or a slot is born with; bench/vacuum.py chose them."""

from support.database import Database

OPTIONS = "select coalesce(reloptions::text, '') from pg_class where oid = %s::regclass"
FREEZES = "{autovacuum_freeze_min_age=0}"
NO_INSERT_VACUUM = "{autovacuum_vacuum_insert_threshold=-1}"


def test_partitions_of_rows_that_never_change_are_frozen_at_their_first_vacuum(
    db: Database,
) -> None:
    db.admin.execute("select mill.ensure_partitions(2000), mill.ensure_partitions(2000, 'wat_id')")
    partitions = db.rows(
        "select child.oid::regclass::text, child.reloptions::text from pg_class child"
        " join pg_inherits on inhrelid = child.oid join pg_class parent on inhparent = parent.oid"
        " where parent.relname in ('pair', 'download', 'score', 'embedding', 'opt_out', 'page')"
        " and child.relkind = 'r'"
    )
    assert len(partitions) == 6 * 3
    assert {options for _, options in partitions} == {FREEZES}


def test_slots_are_not_vacuumed_for_what_is_inserted(db: Database) -> None:
    slots = db.rows("select slot from mill.thumbnail_slot order by 1")
    assert slots == [(n,) for n in range(8)]
    for (slot,) in slots:
        assert db.value(OPTIONS, f"mill.thumbnail_s{slot}") == NO_INSERT_VACUUM
        toast = db.value(
            "select reltoastrelid::regclass::text from pg_class where oid = %s::regclass",
            f"mill.thumbnail_s{slot}",
        )
        assert db.value(OPTIONS, toast) == NO_INSERT_VACUUM
