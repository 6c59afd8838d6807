"""The counters of the funnel against the rows that they stand for."""

import pytest

from support.counted import miscounted
from support.database import Database
from support.random_history import RandomHistory


class Checked(RandomHistory):
    """A history that is counted after each acceptance and each withdrawal."""

    def _accept(self) -> None:
        super()._accept()
        assert miscounted(self.db) == {}

    def _withdraw(self, kind: str) -> None:
        super()._withdraw(kind)
        assert miscounted(self.db) == {}, kind


@pytest.mark.parametrize("seed", [1, 2])
def test_counters_are_the_rows_whatever_is_accepted_and_withdrawn(db: Database, seed: int) -> None:
    Checked(db, seed).run()
    assert miscounted(db) == {}
