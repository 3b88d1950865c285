"""Queries of a file's metadata, whatever its format."""
