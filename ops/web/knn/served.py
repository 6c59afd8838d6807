"""The indexes that are served, each opened again where its files have changed."""

import threading
from collections.abc import Callable, Mapping
from pathlib import Path

from starlette.exceptions import HTTPException

from pairmill.ops.errors import UserError
from pairmill.ops.vectors.opened import Searcher, open_index

WAIT = 2.0  # seconds; 10^6 vectors of a new graph are mapped in 0.4


class ServedIndex:
    """One index under its name. trouble: called with a sentence where it cannot be opened again;
    the files that were opened before go on. threads: as of ``open_index``. Raises UserError where
    it cannot be opened at first."""

    def __init__(
        self, name: str, folder: Path, trouble: Callable[[str], None], threads: int = 0
    ) -> None:
        self.name, self.folder, self._trouble, self._threads = name, folder, trouble, threads
        self._opened = open_index(folder, threads)
        self._opening = threading.Lock()

    @property
    def model(self) -> Mapping[str, str]:
        return self._opened.info.model

    @property
    def dims(self) -> int:
        return self._opened.info.dims

    def unchanged(self) -> Searcher | None:
        """The index, where its files are what they were when it was opened: two calls of
        stat, for which no thread is worth waking."""
        opened = self._opened
        return None if opened.stale() else opened

    def current(self) -> Searcher:
        """The index as its files are now. Blocks while it is opened again: a query that comes after
        a removal must not have what was removed. Where that takes longer than WAIT, queries go on
        with the old one, which is closed when the last lets it go.
        """
        if self._opened.stale() and self._opening.acquire(timeout=WAIT):
            try:
                if self._opened.stale():  # else another query opened it meanwhile
                    self._opened = open_index(self.folder, self._threads)
            except UserError as error:
                self._trouble(f"{error}; its files from before are served on")
            finally:
                self._opening.release()
        return self._opened


class ServedIndexes:
    """All of them, in the order given; the first is the one of a request that names none."""

    def __init__(
        self, folders: Mapping[str, Path], trouble: Callable[[str], None], threads: int = 0
    ) -> None:
        if not folders:
            raise UserError("no index is named: --index NAME=FOLDER")
        self._served = {
            name: ServedIndex(name, at, trouble, threads) for name, at in folders.items()
        }

    def names(self) -> list[str]:
        return list(self._served)

    def all(self) -> list[ServedIndex]:
        return list(self._served.values())

    def get(self, name: str | None) -> ServedIndex:
        """Raises HTTPException 404 for a name that is none of theirs."""
        if name is None:
            return self.all()[0]
        if name not in self._served:
            raise HTTPException(404, "there is no index of this name: GET /indices-list has them")
        return self._served[name]
