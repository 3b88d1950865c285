"""Dandisets by name: what names mean, and which assets there are."""
