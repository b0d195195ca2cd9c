"""Registers the plugins of this repository's own tests; fixtures are in tests/conftest.py."""

pytest_plugins = ["tests.plugins.no_skips"]
