"""How files are reached, and how reads of them behave: handed down as one."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

from lazynwb_dask.storage.options import Options
from lazynwb_dask.storage.settings import Settings


@dataclass(frozen=True)
class FileAccess:
    """How files are reached, and how reads of them behave.

    Attributes
    ----------
    options : Options
        The `storage_options` of the call, without secrets.
    settings : Settings
        Limits and patience, from Dask's configuration.
    """

    options: Options = field(default_factory=Options)
    settings: Settings = field(default_factory=Settings)

    def with_settings(self, **changes: Any) -> FileAccess:
        """The same with some settings changed."""
        return replace(self, settings=replace(self.settings, **changes))
