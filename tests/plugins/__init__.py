"""Plugins for pytest, registered in the root conftest.py."""
