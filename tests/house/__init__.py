"""Tests of the repository itself: its arrows, words, documents and pins."""
