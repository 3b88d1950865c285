"""How files are reached, and how reads of them behave: handed down as one."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

from lazynwb_dask.storage.options import Options
from lazynwb_dask.storage.settings import Settings


@dataclass(frozen=True)
class FileAccess:
    """How files are reached: a call's `storage_options`, without secrets, and the limits and timeouts of
    reads.
    """

    options: Options = field(default_factory=Options)
    settings: Settings = field(default_factory=Settings)

    def with_settings(self, **changes: Any) -> FileAccess:
        """The same with some settings changed."""
        return replace(self, settings=replace(self.settings, **changes))
