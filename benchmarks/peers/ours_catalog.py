"""lazynwb_dask with a catalog of the files, which was built before the clock starts."""

from __future__ import annotations

import lazynwb_dask

from . import ours


class Reader(ours.Reader):
    """The same queries; only where the files come from differs."""

    def plan(self) -> None:
        folder = f"{self.task.settings['catalog']}-built-{len(self.task.urls)}"
        catalog = lazynwb_dask.build_catalog(list(self.task.urls), folder, storage_options=self.options)
        self.frame = lazynwb_dask.read_nwb(catalog, self.task.table)
