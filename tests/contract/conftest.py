"""Failures inside the suites that ship are shown as those of the tests."""

from __future__ import annotations

import pytest

pytest.register_assert_rewrite("atelier.testing")
