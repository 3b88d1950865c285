"""The columns of a frame: their Arrow types, and the pandas dtypes that follow from these."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
from pandas.api.extensions import ExtensionDtype

from lazynwb_dask.decode.convert import numpy_dtype
from lazynwb_dask.errors import Failure

PROVENANCE = ("_nwb_path", "_table_path", "_table_index")


@dataclass(frozen=True)
class Field:
    name: str
    type: pa.DataType
    nullable: bool = False
    of: Field | None = None  # the column that it is derived from

    @property
    def dtype(self) -> np.dtype[Any] | ExtensionDtype:
        kind = self.type
        if pa.types.is_string(kind):
            return pd.StringDtype("pyarrow")
        if pa.types.is_floating(kind):
            return numpy_dtype(kind)
        if (pa.types.is_integer(kind) or pa.types.is_boolean(kind)) and not self.nullable:
            return numpy_dtype(kind)
        if pa.types.is_timestamp(kind) and kind.tz:
            return pd.DatetimeTZDtype(kind.unit, kind.tz)
        return pd.ArrowDtype(kind)


@dataclass(frozen=True)
class Conflict:
    """Why a column is not in the frame."""

    name: str
    reason: str
    unreadable: bool = False


@dataclass(frozen=True)
class Unread(Failure):
    """A column that can't be read in one file, in whose rows it is missing."""

    column: str


@dataclass(frozen=True)
class Schema:
    """The columns of the frame, in order, and those left out of it."""

    fields: dict[str, Field]
    conflicts: dict[str, Conflict] = field(default_factory=dict)
    unread: tuple[Unread, ...] = ()
    narrow: frozenset[str] = frozenset()  # float64, while files have integers that it may not hold

    def meta(self, columns: Iterable[str]) -> pd.DataFrame:
        """An empty frame of some columns."""
        data = {name: pd.Series([], dtype=self.fields[name].dtype).array for name in columns}
        return pd.DataFrame(data, index=pd.Index([], dtype="int64"))


PROVENANCE_FIELDS = {
    "_nwb_path": Field("_nwb_path", pa.string()),
    "_table_path": Field("_table_path", pa.string()),
    "_table_index": Field("_table_index", pa.int64()),
}
