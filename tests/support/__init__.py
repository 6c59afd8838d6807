"""What several tests, and the programs in bench, use. What these modules assert is explained as in a test."""

import pkgutil

import pytest

pytest.register_assert_rewrite(
    *(f"{__name__}.{each.name}" for each in pkgutil.iter_modules(__path__))
)
