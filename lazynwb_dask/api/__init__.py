"""The public functions: each checks its arguments and is a few lines over the rooms below."""
