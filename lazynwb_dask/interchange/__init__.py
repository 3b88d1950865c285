"""Frames and series as objects of other libraries."""
