"""Readers of file formats: metadata in, the index data model out."""
