"""What tasks are called where Dask shows them."""

from __future__ import annotations

import re
from collections.abc import Sequence
from itertools import takewhile

from lazynwb_dask.model.source import shown

LONGEST = 60  # characters of either part: workers that spill to disk make file names of task names


def words(path: str) -> list[str]:
    """The words of the last part of a path in a file.

    >>> words("/intervals/invalid_times")
    ['invalid', 'times']
    """
    return [word.lower() for word in re.findall("[A-Za-z]+", path.rpartition("/")[2])]


def tables(label: str) -> list[str]:
    """The words that a label has after the first, as far as Dask groups tasks by them.

    >>> tables("read-units-@sub-01")
    ['units']
    """
    return list(takewhile(str.isalpha, label.split("-")[1:]))


def task_label(kind: str, about: Sequence[str], urls: Sequence[str]) -> str:
    """What is done with which tables, by which Dask groups tasks, and with which file, if it is one.

    Dask groups by words of nothing but letters up to the first other one. So one that begins with ``@``
    keeps tasks of several files in one group, while each is called by its own name.

    >>> task_label("read", ["units"], ["https://host/sub-01.nwb?secret=1"])
    'read-units-@sub-01'
    >>> task_label("join", ["units", "trials"], ["/a.nwb", "/b.nwb"])
    'join-units-trials'
    """
    label = "-".join([kind, *(about or ["nwb"])])[:LONGEST].rstrip("-")
    if len(urls) != 1:
        return label
    name = shown(urls[0]).rstrip("/").rpartition("/")[2]
    stem = re.sub(r"(\.nwb|\.zarr|\.lindi|\.json|\.h5|\.hdf5)+$", "", name)
    return f"{label}-@{re.sub('[^A-Za-z0-9_.+-]+', '_', stem)[:LONGEST]}"
