"""The table of filters in docs/formats.md is what is undone, and by what."""

from __future__ import annotations

import re
from pathlib import Path

import hdf5plugin
import pytest

from lazynwb_dask.decode import codecs
from lazynwb_dask.decode.filters import check_filters
from lazynwb_dask.errors import UnsupportedColumnError
from lazynwb_dask.model.index import Filter

PAGE = (Path(__file__).parents[2] / "docs" / "formats.md").read_text()
TABLE = PAGE.partition("| filter |")[2].partition("\n\n")[0]
NATIVE, LIBHDF5, PLUGIN = (set(re.findall(r"`(\w+)`", row.split("|")[1])) for row in TABLE.splitlines()[2:5])


def number(name: str) -> int:
    own = getattr(codecs, name.upper(), None)
    return own if own is not None else getattr(hdf5plugin, name).filter_id


def test_the_filters_that_need_no_libhdf5_are_listed() -> None:
    assert {number(name) for name in NATIVE} == codecs.NATIVE


def test_those_that_libhdf5_undoes_are_available_with_the_plugins() -> None:
    assert {number(name) for name in LIBHDF5} == {codecs.LZF, codecs.SZIP, codecs.NBIT, codecs.SCALEOFFSET}
    assert len(PLUGIN) == 4
    check_filters([Filter(number("lzf"))])
    for name in PLUGIN:
        assert number(name) not in codecs.NATIVE
        check_filters([Filter(number(name))])


def test_another_filter_is_named() -> None:
    with pytest.raises(UnsupportedColumnError, match=r"filter 499 .*HDF5_PLUGIN_PATH"):
        check_filters([Filter(499)])
