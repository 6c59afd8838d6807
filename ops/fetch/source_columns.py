"""The columns of several files as those of one table: the same names, of types that hold all."""

from collections import Counter
from collections.abc import Sequence
from operator import itemgetter

import pyarrow as pa

from pairmill.ops.errors import UserError
from pairmill.ops.fetch.source_files import SourceFile
from pairmill.ops.fetch.values import is_binary, is_text


class UnitedFiles:
    """Files with the columns of all. headers: each file's names of columns. places: of each file's
    columns, among ``names``."""

    def __init__(
        self, name: str, files: list[SourceFile], headers: Sequence[Sequence[str]]
    ) -> None:
        self.name, self.files = name, files
        for file, header in zip(files, headers, strict=True):
            twice, times = max(Counter(header).items(), key=itemgetter(1), default=("", 0))
            if times > 1:
                raise UserError(f"{file.name} has two columns named {twice}")
        self.names, self.places = united_names(headers)

    def lacking(self, name: str) -> str | None:
        """The name of the first file without a column; an empty file lacks none."""
        at = self.names.index(name)
        pairs = zip(self.files, self.places, strict=True)
        return next((file.name for file, places in pairs if places and at not in places), None)


def united_names(files: Sequence[Sequence[str]]) -> tuple[list[str], list[list[int]]]:
    """The names of the columns of all files, as they come first, and of each file's columns their
    places among them. A name that an earlier file has in another case is that column's."""
    names: list[str] = []
    places = []
    for own in files:
        its_own = set(own)
        known = {name: at for at, name in enumerate(names)}
        folded = {name.lower(): at for name, at in known.items() if name not in its_own}
        found = []
        for name in own:
            at = known.get(name)
            if at is None:
                at = folded.pop(name.lower(), None)
            if at is None:
                at = len(names)
                names.append(name)
            found.append(at)
        places.append(found)
    return names, places


def united_type(first: pa.DataType, other: pa.DataType) -> pa.DataType | None:
    """A type that holds the values of both; None where there is none but text."""
    kinds = _plain(first), _plain(other)
    if any(map(is_binary, kinds)) and any(map(is_text, kinds)):
        return None  # PyArrow's is binary
    try:
        both = [pa.schema([("", kind)]) for kind in kinds]
        return pa.unify_schemas(both, promote_options="permissive").field(0).type
    except pa.ArrowException:
        return None


def _plain(kind: pa.DataType) -> pa.DataType:
    """Without what tells only how values are laid out."""
    if pa.types.is_dictionary(kind):
        return _plain(kind.value_type)
    if kind in (pa.string_view(), pa.binary_view()):
        return pa.large_string() if kind == pa.string_view() else pa.large_binary()
    return kind
