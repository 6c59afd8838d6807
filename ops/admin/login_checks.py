"""Logins that differ from the lists of them, and rights that are too wide."""

from collections import defaultdict

import psycopg
from psycopg.sql import Identifier

from pairmill.ops.queries import rows
from pairmill.schema.scripts import sql

SHOWN = 5
AS_SUPERUSER = "in psql, as the one who made it or a superuser"
# what is wrong -> the sentence for its logins and the cure for each. {quoted}: an identifier
SAID = {
    "unlisted": (
        "logins are in no list of workers, researchers or pages and can still log in: {names}",
        f"`drop role {{quoted}}` ends one, {AS_SUPERUSER}",
    ),
    "stray": (
        "logins of our form are in no group, as after a database was dropped: {names}",
        f"`drop role {{quoted}}` ends one, {AS_SUPERUSER}",
    ),
    "absent_worker": (
        "workers have no login on this server, as after a restore without the logins: {names}",
        "restore the roles, or `pairmill worker disable {name}` and add another",
    ),
    "absent_researcher": (
        "researchers have no login on this server, as after a restore without the logins: {names}",
        "restore the roles, or `pairmill researcher disable {name}` and add another",
    ),
    "absent_page": (
        "pages have no login on this server, as after a restore without the logins: {names}",
        "`pairmill web remove-login {name}`, then `pairmill web add-login`",
    ),
    "works_worker": (
        "workers are disabled and their logins still work: {names}",
        "`pairmill worker disable {name}` once more",
    ),
    "works_researcher": (
        "researchers are disabled and their logins still work: {names}",
        "`pairmill researcher disable {name}` once more",
    ),
    "powerless_worker": (
        "workers are not disabled, and their logins may do nothing: {names}",
        "`pairmill worker disable {name}`, then `pairmill worker enable {name}`",
    ),
    "powerless_researcher": (
        "researchers are not disabled, and their logins may do nothing: {names}",
        "`pairmill researcher enable {name}`, or disable it and add another",
    ),
    "powerless_page": (
        "pages' logins may do nothing: {names}",
        "`pairmill web remove-login {name}`, then `pairmill web add-login`",
    ),
    "wide": (
        "logins of workers, researchers or pages may do more than theirs: {named}",
        f"`alter role {{quoted}} nosuperuser nocreaterole nocreatedb noreplication nobypassrls` and"
        f" `revoke` of the memberships, {AS_SUPERUSER}",
    ),
    "group": (
        "group roles may log in or are superusers: {names}",
        f"`alter role {{quoted}} nologin nosuperuser`, {AS_SUPERUSER}",
    ),
    "right": (
        "rights that `pairmill migrate` did not give: {named}",
        "`revoke {detail} from {quoted}`, as a superuser",
    ),
}


def check_logins(connection: psycopg.Connection) -> list[tuple[str, list[str]]]:
    """A sentence with its cure for each kind of fault, and the logins or names that it is about."""
    found: dict[str, list[tuple[str, str]]] = defaultdict(list)
    for row in rows(connection, sql("doctor_logins")):
        found[row["what"]].append((row["login"], row["detail"]))
    return [
        (_sentence(connection, *SAID[what], faults), sorted({login for login, _ in faults}))
        for what, faults in found.items()
    ]


def _sentence(
    connection: psycopg.Connection, sentence: str, cure: str, faults: list[tuple[str, str]]
) -> str:
    more = f" and {len(faults) - SHOWN:,} more" if len(faults) > SHOWN else ""
    (first, detail), shown = faults[0], faults[:SHOWN]
    quoted = "public" if first == "PUBLIC" else Identifier(first).as_string(connection)
    said = sentence.format(
        names=", ".join(login for login, _ in shown) + more,
        named=", ".join(f"{login} ({detail})" for login, detail in shown) + more,
    )
    count = f"{len(faults):,} " if len(faults) > 1 else ""
    return f"{count}{said}; {cure.format(name=first, quoted=quoted, detail=detail)}"
