"""The errors that lazynwb_dask raises on purpose.

Each message names the file, the table or the column, and the way out. All of them pickle, so that an
error on a worker reaches the client as itself.
"""

from __future__ import annotations

from dataclasses import dataclass


class NWBError(Exception):
    """Base of every error of this package.

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
    """No file has the table that was asked for, or one lacks it where all must have it. A KeyError, too."""


class ColumnNotFoundError(NWBError, KeyError):
    """No file has the column that was asked for. The message has names that are alike. A KeyError, too."""


class SchemaConflictError(NWBError, TypeError):
    """A column was asked for whose types in different files have no common type. It is a TypeError, too.

    ``schema={"column": type}`` of `read_nwb` says which type it is to have. Not asked for, it is left out.
    """


class UnsupportedColumnError(NWBError):
    """A column was asked for that is stored in a way that can't be read, or by a filter that isn't there."""


class SQLError(NWBError, ValueError):
    """A statement that DuckDB doesn't understand, or that isn't taken."""


class NWBReadError(NWBError, OSError):
    """A file can't be read: missing, forbidden, truncated, damaged or not NWB. It is an OSError, too.

    ``on_error="skip"`` leaves such files out.
    """


class NWBFileNotFoundError(NWBReadError, FileNotFoundError):
    """There is no such file, or nothing matches a pattern or lies below a folder."""


class NWBPermissionError(NWBReadError, PermissionError):
    """The store refuses to hand out a file: credentials are missing, wrong or expired."""


class NWBFileChangedError(NWBReadError):
    """A file is no longer the one that was planned with: it was replaced or modified."""


class NWBMemoryError(NWBError):
    """What a task would read at once takes more memory than its worker has."""


@dataclass(frozen=True)
class Failure:
    """What went wrong with one file.

    Parameters
    ----------
    path : str
        Without the query string of a URL, which may hold a signature.
    stage : {"plan", "read"}
    error : str
        The error's class and text.
    """

    path: str
    stage: str
    error: str

    @staticmethod
    def of(path: str, stage: str, exc: BaseException) -> Failure:
        return Failure(path, stage, f"{type(exc).__name__}: {exc}")
