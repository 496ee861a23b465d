"""Synchronous forwards: what a waiting client sees."""
