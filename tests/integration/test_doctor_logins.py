"""The doctor finds each way in which logins differ from the lists, and its cure cures it."""

import re
from typing import LiteralString, cast

from pairmill.ops.admin import logins
from pairmill.ops.admin.login_checks import SAID, check_logins
from pairmill.schema.scripts import sql
from support.database import Database, empty_database, make_schema

# fault -> statements that make it, what is said, statements that cure it. {w}, {r}: the logins of
# worker ada, researcher Bob and page live; {x}: a login of nobody; {group}: the download workers'
FAULTS: dict[str, tuple[list[str], str, list[str]]] = {
    "unlisted": (
        ["create role {x} login in role {group}"], "^logins are in no list .*: {x}; `drop role",
        ["drop role {x}"],
    ),
    "unlisted researcher": (
        ["delete from mill.researcher"], "are in no list .*: {r};",
        ["insert into mill.researcher (login, name) values ('{r}', 'Bob')"],
    ),
    "stray": (
        ["create role pm_00000000000{n} login"], "was dropped: pm_00000000000{n};",
        ["drop role pm_00000000000{n}"],
    ),
    "absent": (
        ["insert into mill.worker (login, name, kind) values ('gone', 'eve', 'download')",
         "insert into mill.researcher (login, name) values ('away', 'Fay')"],
        "^workers have no login on this server.*: eve; .*`pairmill worker disable eve`",
        ["select mill.disable_worker('eve')", "select mill.disable_researcher('Fay')"],
    ),
    "absent page": (
        ["insert into mill.page_login (login, page, name) values ('nowhere', 'explore', 'there')"],
        "^pages have no login on this server.*: there; `pairmill web remove-login there`",
        ["select mill.remove_page_login('there')"],
    ),
    "works": (
        ["select mill.disable_worker('ada')", "grant {group} to {w}"],
        "workers are disabled and their logins still work: ada; `pairmill worker disable ada`",
        ["select mill.disable_worker('ada')", "select mill.enable_worker('ada')"],
    ),
    "works as before": (
        ["update mill.researcher set disabled_at = now()"],
        "researchers are disabled and their logins still work: Bob;",
        ["select mill.disable_researcher('Bob')", "select mill.enable_researcher('Bob')"],
    ),
    "powerless": (
        ["revoke {group} from {w}"], "not disabled, and their logins may do nothing: ada;",
        ["select mill.disable_worker('ada')", "select mill.enable_worker('ada')"],
    ),
    "powerless researcher": (
        ["alter role {r} nologin"], "may do nothing: Bob; `pairmill researcher enable Bob`",
        ["select mill.enable_researcher('Bob')"],
    ),
    "powerless page": (
        ["revoke {live} from {p}"], "^pages' logins may do nothing: live; `pairmill web remove-",
        ["grant {live} to {p}"],
    ),
    "unlisted page": (
        ["delete from mill.page_login"], "are in no list .* or pages .*: {p};",
        ["insert into mill.page_login (login, page, name) values ('{p}', 'live', 'live')"],
    ),
    "right of a page": (
        ["grant select on mill.worker to {live}"], r"{live} \(SELECT on table mill.worker\)",
        ["revoke select on mill.worker from {live}"],
    ),
    "wide": (
        ["alter role {w} createdb createrole", "grant {owner} to {w}"],
        r"may do more than theirs: {w} \(createrole, createdb, member of {owner}\); `alter role",
        ["alter role {w} nocreatedb nocreaterole", "revoke {owner} from {w}"],
    ),
    "group": (
        ["alter role {group} login"], "group roles may log in or are superusers: {group};",
        ["alter role {group} nologin"],
    ),
    "right on a table": (
        ["grant select on mill.worker to public"],
        r"PUBLIC \(SELECT on table mill.worker\); `revoke SELECT on table mill.worker from public`",
        ["revoke select on table mill.worker from public"],
    ),
    "right of a group": (
        ["grant update (streak) on mill.worker to {group}"],
        r"{group} \(UPDATE on columns of table mill.worker\)",
        ["revoke update (streak) on mill.worker from {group}"],
    ),
    "right on a function": (
        ["create role {x}", "grant execute on function mill.add_worker to {x}"],
        r"{x} \(EXECUTE on function mill.add_worker\(name,text,text,text\)\)",
        ["drop owned by {x}", "drop role {x}"],
    ),
}  # fmt: skip


def test_each_fault_is_found_and_its_cure_is_one(server: str) -> None:
    """Would catch: a login that works and that nobody sees, and a cure that leaves it so."""
    with empty_database(server) as dsn:
        make_schema(dsn)
        db = Database(dsn)
        names = {
            "w": logins.add_worker(db.admin, "ada", "download").split("//")[1].split(":")[0],
            "r": logins.add_researcher(db.admin, "Bob").split("//")[1].split(":")[0],
            "x": f"{db.admin.info.dbname}_x", "n": str(len(FAULTS) % 10),
            "p": logins.add_page(db.admin, "live").split("//")[1].split(":")[0],
            "live": db.group("live"), "group": db.group("download"), "owner": db.group("owner"),
        }  # fmt: skip
        db.admin.execute(sql("secure"))  # groups have rights on the database itself, too

        def run(statements: list[str]) -> None:
            for statement in statements:
                db.admin.execute(cast(LiteralString, statement.format(**names)))

        assert check_logins(db.admin) == []
        for fault, (make, says, cure) in FAULTS.items():
            run(make)
            found = [text for text, _ in check_logins(db.admin)]
            pattern = re.sub(r"\{(\w)\}|\{(\w+)\}", lambda m: names[m[1] or m[2]], says)
            assert [text for text in found if re.search(pattern, text)], (fault, found)
            assert len(found) == (2 if fault == "absent" else 1), (fault, found)
            run(cure)
            assert check_logins(db.admin) == [], fault
        db.close()
    assert {fault.split()[0] for fault in FAULTS} <= {name.split("_")[0] for name in SAID}


def test_many_are_a_sentence_with_all_names_beside_it(db: Database) -> None:
    """Would catch: a page of a thousand names after a restore without roles, or half of them."""
    db.admin.execute(
        "insert into mill.worker (login, name, kind) select 'gone' || n, 'worker ' || n, 'download'"
        " from generate_series(1, 20) n"
    )
    ((text, names),) = check_logins(db.admin)
    assert text.startswith("20 workers have no login on this server")
    assert "worker 11, worker 12, worker 13 and 15 more; restore the roles" in text
    assert len(names) == 20
