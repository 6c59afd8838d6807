"""What several tests, and the programs in bench, use."""

import pytest

pytest.register_assert_rewrite("support")
