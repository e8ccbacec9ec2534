"""Suites that every implementation of a contract must pass; they ship, so that yours can be held to them too.

Each suite is a class of pytest tests: inherit from it in a test module and override its first fixture. Before that,
``pytest.register_assert_rewrite("atelier.testing")`` makes failures readable. Needs pytest.
"""
