"""Advice of messages, which is written for Python, in terms of the command's options."""

from __future__ import annotations

import re

_ADVICE = [
    (re.compile(pattern), here)
    for pattern, here in (
        (r"; lazynwb_dask\.read_report\(frame\) lists (all|them)", ""),
        (r"on_(error|missing)=(['\"])skip\2", r"--on-\1 skip"),
        (r"on_(error|missing)=(['\"])raise\2", r"--on-\1 raise"),
        (r"--on-error skip", "--skip-errors"),
        (r"\(--on-error raise leaves", "(without --skip-errors it leaves"),
        (r"(catalog\.)?refresh\(anew=True\)", "catalog refresh --anew"),
        (r"\bbuild_catalog\(paths, url\)|\bbuild_catalog\b", "catalog build"),
        (r"open it again with open_catalog", "run the command again"),
        (r"allow_external_links=True", "--allow-external-links"),
        (r"schema=(\{[^{}]*\})", lambda found: f"--schema '{_json(found[1])}'"),
        (r"scaled=True", "--scaled"),
        (r"\bfilters=", "--where"),
        (r"\b(columns|schema|channels|blocksize|tables)=(?=['\"\[({\w])", r"--\1 "),
        (r"\b(columns|schema|channels|scaled|blocksize)=", r"--\1"),
        (r"storage_options=(?=\{)", "--storage-options "),
        (r"\bstorage_options\b", "--storage-options"),
        (r"\b[Cc]all read_nwb again|\bread_nwb again", "run the command again"),
        (r"\bread_nwb reads it", "lazynwb-dask head reads it"),
        (r"lazynwb_dask\.schema_report", "lazynwb-dask schema"),
        (r"lazynwb_dask\.contents", "lazynwb-dask contents"),
    )
]


def spelt(text: str) -> str:
    """A message with commands and options rather than functions and arguments.

    >>> spelt("a.nwb: no such file. on_error='skip' leaves such files out")
    'a.nwb: no such file. --skip-errors leaves such files out'
    >>> spelt("columns= or filters=: no column 'x'; give schema={'x': type}")
    '--columns or --where: no column \\'x\\'; give --schema \\'{"x": type}\\''
    """
    for pattern, here in _ADVICE:
        text = pattern.sub(here, text)
    return text


def _json(mapping: str) -> str:
    return mapping.replace("'", '"')
