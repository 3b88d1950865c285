"""Names of tasks, as Dask shows them."""

from __future__ import annotations

import re
from collections.abc import Sequence
from itertools import takewhile

from lazynwb_dask.model.source import shown

LONGEST = 60  # characters of either part: workers that spill to disk use them in file names


def words(path: str) -> list[str]:
    """The words of a path's last part: ``['invalid', 'times']`` of ``/intervals/invalid_times``."""
    return [word.lower() for word in re.findall("[A-Za-z]+", path.rpartition("/")[2])]


def tables(label: str) -> list[str]:
    """The words of a label after the first, as far as Dask groups tasks by them.

    >>> tables("read-units-@sub-01")
    ['units']
    """
    return list(takewhile(str.isalpha, label.split("-")[1:]))


def task_label(kind: str, about: Sequence[str], urls: Sequence[str]) -> str:
    """The name of a task: what it does, the tables, and the file if it is a single one.

    Dask groups tasks by the words of a name up to the first with other characters than letters. So ``@``
    keeps the tasks of several files in one group.

    >>> task_label("read", ["units"], ["https://host/sub-01.nwb?secret=1"])
    'read-units-@sub-01'
    """
    label = "-".join([kind, *(about or ["nwb"])])[:LONGEST].rstrip("-")
    if len(urls) != 1:
        return label
    name = shown(urls[0]).rstrip("/").rpartition("/")[2]
    stem = re.sub(r"(\.nwb|\.zarr|\.lindi|\.json|\.h5|\.hdf5|\.zip)+$", "", name)
    return f"{label}-@{re.sub('[^A-Za-z0-9_.+-]+', '_', stem)[:LONGEST]}"
