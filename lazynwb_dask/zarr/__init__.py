"""Zarr: metadata documents, what they say of arrays, and the values that they hold or name."""
