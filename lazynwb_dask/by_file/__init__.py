"""Scans over several tables of the same files: joins, and functions of a file's tables, without a
shuffle."""
