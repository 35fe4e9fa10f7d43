"""Layouts of other libraries, and files of state dicts."""
