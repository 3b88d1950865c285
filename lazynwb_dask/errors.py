"""The errors of lazynwb_dask.

Each message names the file, the table or the column, and says what to do. Errors can be pickled: an error on a
worker reaches the client with its class and text.
"""

from __future__ import annotations

from dataclasses import dataclass

__all__ = [
    "ColumnNotFoundError",
    "NWBError",
    "NWBFileChangedError",
    "NWBFileNotFoundError",
    "NWBMemoryError",
    "NWBPermissionError",
    "NWBReadError",
    "SQLError",
    "SchemaConflictError",
    "TableNotFoundError",
    "UnsupportedColumnError",
]


class NWBError(Exception):
    """Base class of the errors of this package.

    ``except NWBError`` catches all of them. Wrong arguments are a `TypeError` or `ValueError`. Raised itself
    for what has no class of its own, such as a function of `map_files` that fails for a file.

    Examples
    --------
    >>> import lazynwb_dask
    >>> try:
    ...     lazynwb_dask.read_nwb("no-such-file.nwb", "/units")
    ... except lazynwb_dask.NWBError as error:
    ...     print(type(error).__name__)
    NWBFileNotFoundError
    """

    def __str__(self) -> str:  # KeyError would show the repr of the message
        return str(self.args[0]) if self.args else ""


class TableNotFoundError(NWBError, KeyError):
    """No file has the requested table or TimeSeries, or a file lacks it with ``on_missing="raise"``.

    Also a `KeyError`. The message names the tables that exist. `list_tables` lists those of a file.

    Examples
    --------
    >>> import lazynwb_dask
    >>> from lazynwb_dask.datasets import make_sessions
    >>> lazynwb_dask.read_nwb(make_sessions("sessions", n=1), "/unitz")
    Traceback (most recent call last):
    lazynwb_dask.errors.TableNotFoundError: .../unitz.../units...
    """


class ColumnNotFoundError(NWBError, KeyError):
    """No file has the requested column.

    Also a `KeyError`. The message names columns with similar names. `schema_report` lists those of a table.

    Examples
    --------
    >>> import lazynwb_dask
    >>> from lazynwb_dask.datasets import make_sessions
    >>> lazynwb_dask.read_nwb(make_sessions("sessions", n=1), "/units", columns=["presence_rato"])
    Traceback (most recent call last):
    lazynwb_dask.errors.ColumnNotFoundError: ...presence_rato...presence_ratio...
    """


class SchemaConflictError(NWBError, TypeError):
    """The types that a requested column has in different files can't be combined.

    Or a value can't be converted to the type of `schema` without a change. Also a `TypeError`. The argument
    `schema` of `read_nwb` sets the types of columns. A column that isn't requested by name is left out with a
    warning instead; `schema_report` shows its types.

    Examples
    --------
    >>> import h5py, lazynwb_dask
    >>> from lazynwb_dask.datasets import make_sessions
    >>> paths = make_sessions("sessions", n=2)
    >>> with h5py.File(paths[1], "r+") as file:
    ...     attributes = dict(file["units/snr"].attrs)
    ...     del file["units/snr"]
    ...     file["units"].create_dataset("snr", data=[[[1.5, 2.5]]] * 120).attrs.update(attributes)
    >>> lazynwb_dask.read_nwb(paths, "/units", columns=["id", "snr"])
    Traceback (most recent call last):
    lazynwb_dask.errors.SchemaConflictError: ...'snr'...
    """


class UnsupportedColumnError(NWBError):
    """A requested column can't be read, because of how it is stored or because its filter isn't available.

    Also raised by functions for which a column has a wrong type. A column that isn't requested by name is left
    out with a warning instead; the column `problem` of `schema_report` says why.

    Examples
    --------
    >>> import lazynwb_dask
    >>> from lazynwb_dask.datasets import make_sessions
    >>> paths = make_sessions("sessions", n=1)
    >>> units, trials = lazynwb_dask.read_nwb(paths, "/units"), lazynwb_dask.read_nwb(paths, "trials")
    >>> lazynwb_dask.align_events(units, trials, event="stim_name")
    Traceback (most recent call last):
    lazynwb_dask.errors.UnsupportedColumnError: ...'stim_name'...
    """


class SQLError(NWBError, ValueError):
    """A statement is not valid SQL, or is not a single SELECT.

    Also a `ValueError`. The message has the line and the column of the error. Raised by `sql`.

    Examples
    --------
    >>> import lazynwb_dask
    >>> from lazynwb_dask.datasets import make_sessions
    >>> lazynwb_dask.sql("SELECT unit_id FRM units", make_sessions("sessions", n=1))
    Traceback (most recent call last):
    lazynwb_dask.errors.SQLError: SQL, line 1, column 20: ...
    """


class NWBReadError(NWBError, OSError):
    """A file can't be read: it is truncated, damaged or not an NWB file, or its server doesn't answer.

    Also an `OSError`. Base class of `NWBFileNotFoundError`, `NWBPermissionError` and `NWBFileChangedError`.
    With ``on_error="skip"`` such files are left out.

    Examples
    --------
    >>> import lazynwb_dask
    >>> _ = open("notes.nwb", "w").write("no HDF5 file")
    >>> lazynwb_dask.read_nwb("notes.nwb", "/units")
    Traceback (most recent call last):
    lazynwb_dask.errors.NWBReadError: ...notes.nwb...
    """


class NWBFileNotFoundError(NWBReadError, FileNotFoundError):
    """A file does not exist, or a folder or glob has no NWB file.

    Also a `FileNotFoundError`.

    Examples
    --------
    >>> import lazynwb_dask
    >>> lazynwb_dask.list_tables("no-such-file.nwb")
    Traceback (most recent call last):
    lazynwb_dask.errors.NWBFileNotFoundError: ...no-such-file.nwb...
    """


class NWBPermissionError(NWBReadError, PermissionError):
    """Access to a file is denied: credentials are missing, wrong or expired.

    Also a `PermissionError`. Give credentials by `storage_options`, or as the store's own tools read them.

    Examples
    --------
    >>> import lazynwb_dask
    >>> lazynwb_dask.read_nwb("s3://private/sub-1.nwb", "/units")  # doctest: +SKIP
    Traceback (most recent call last):
    lazynwb_dask.errors.NWBPermissionError: ...
    """


class NWBFileChangedError(NWBReadError):
    """A file was replaced or modified after `read_nwb` had read its metadata.

    Call `read_nwb` again.

    Examples
    --------
    >>> import h5py, lazynwb_dask
    >>> from lazynwb_dask.datasets import make_sessions
    >>> paths = make_sessions("sessions", n=1)
    >>> units = lazynwb_dask.read_nwb(paths, "/units")
    >>> with h5py.File(paths[0], "r+") as file:
    ...     file["units/snr"][0] = 7.5
    >>> units.snr.compute()
    Traceback (most recent call last):
    lazynwb_dask.errors.NWBFileChangedError: ...
    """


class NWBMemoryError(NWBError):
    """A task would need more memory than its worker has.

    Raised before the memory is allocated. Read fewer columns, or use a smaller `blocksize`.

    Examples
    --------
    >>> import lazynwb_dask
    >>> frame = lazynwb_dask.read_nwb(paths, "/acquisition/lfp", blocksize=None)  # doctest: +SKIP
    >>> frame.compute()  # doctest: +SKIP
    Traceback (most recent call last):
    lazynwb_dask.errors.NWBMemoryError: ...
    """


@dataclass(frozen=True)
class Failure:
    """What went wrong with one file. For internal use.

    Parameters
    ----------
    path : str
        Without the query string of a URL, which may hold a signature.
    stage : {"plan", "read"}
    error : str
        The class and text of the error.
    """

    path: str
    stage: str
    error: str

    @staticmethod
    def of(path: str, stage: str, exc: BaseException) -> Failure:
        return Failure(path, stage, f"{type(exc).__name__}: {exc}")
