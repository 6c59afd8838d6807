"""The columns of a release by what they mean, whatever its layout calls them."""

from collections.abc import Mapping
from dataclasses import dataclass

import pyarrow as pa

from pairmill.ops.errors import UserError
from pairmill.ops.release.meanings import meaning
from pairmill.ops.web.explore.duck import quoted

OWN = ("_id", "_host", "_position", "_common")  # that a working copy has beside a release's
NARROW = (
    "width", "height", "licence", "language", "nsfw", "similarity", "punsafe", "pwatermark",
    "aesthetic",
)  # fmt: skip
# host of a URL in lower case, without user and port
HOST = (
    "regexp_replace(lower(split_part(regexp_extract({url}, '^[^:/?#]+://([^/?#]*)', 1), '@', -1)),"
    " ':[0-9]*$', '')"
)
# its labels from the last on, by which a host and its subdomains are neighbours
REVERSED = "array_to_string(list_reverse(string_split({host}, '.')), '.')"


@dataclass(frozen=True)
class ReleaseColumns:
    """names: of all columns, in order. by_role: the name of the column that has a role: those of
    ``meanings.ROLES``, and punsafe, pwatermark, nsfw. tags: further numbers, by which rows can be
    filtered and ordered."""

    names: tuple[str, ...]
    by_role: Mapping[str, str]
    tags: tuple[str, ...]
    hexadecimal_id: bool

    def get(self, role: str) -> str | None:
        return self.by_role.get(role)

    def sql(self, role: str) -> str:
        """The column that has a role as SQL; null where there is none."""
        name = self.by_role.get(role)
        return quoted(name) if name else "null"

    def narrow(self) -> list[str]:
        """The columns that rows are filtered and ordered by: none of them is a long text."""
        roles = [self.by_role[role] for role in NARROW if role in self.by_role]
        return [*roles, *self.tags]

    def id_sql(self) -> str:
        """The SAMPLE_ID, bigint."""
        name = self.sql("id")
        if not self.hexadecimal_id:
            return f"{name}::bigint"
        # of a uid that is a SAMPLE_ID the first half is 0
        return (
            f"(case when starts_with({name}, repeat('0', 16))"
            f" then ('0x' || substr({name}, 17))::ubigint::bigint"
            f" else error('a uid is no SAMPLE_ID') end)"
        )

    def host_sql(self) -> str:
        return HOST.format(url=self.sql("url"))


def columns_of(schema: pa.Schema) -> ReleaseColumns:
    """Raises UserError for a release without ids, to whose rows nothing could link."""
    found: dict[str, str] = {}
    tags: list[str] = []
    for field in schema:
        role = meaning(field.name).role
        lower = field.name.lower()
        if role == "probability":
            role = lower
        elif role == "label":
            role = "nsfw"
        if role in ("tag", "similarity") and (role == "tag" or role in found):
            if pa.types.is_floating(field.type) or pa.types.is_integer(field.type):
                tags.append(field.name)
            continue
        found.setdefault(role, field.name)
    if "id" not in found or "url" not in found:
        raise UserError(
            "its rows have neither SAMPLE_ID nor uid, so that nothing can link to one: build it in"
            " another layout, or with --set with_sample_id=true"
        )
    lowered = [name.lower() for name in schema.names]
    if len(set(lowered)) < len(lowered) or set(lowered) & set(OWN):
        raise UserError("two of its columns have one name")
    kind = schema.field(found["id"]).type
    return ReleaseColumns(tuple(schema.names), found, tuple(tags), not pa.types.is_integer(kind))
