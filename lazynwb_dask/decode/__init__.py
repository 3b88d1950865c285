"""Stored bytes to NumPy and Arrow arrays: filters, gathers, conversions. No loop over rows or elements."""
