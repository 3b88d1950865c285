"""Each setting is heeded, with its unit, also from the environment."""

from __future__ import annotations

import dask
from dask.config import collect_env

from lazynwb_dask import config

GIVEN = {
    "CONNECTIONS": "7", "GAP": "3 KiB", "SPLIT": "5 MiB", "IN_FLIGHT": "9 MiB", "TIMEOUT": "11 s",
    "RETRIES": "13", "DEADLINE": "2 m", "SORTED_TIMESTAMPS": "true", "FOLLOW_LINKS": "true", "ISOLATE": "true",
    "ISOLATE_MEMORY": "1 GiB", "ISOLATE_DEADLINE": "17 s",
}  # fmt: skip
WANTED = {
    "connections": 7, "gap": 3 << 10, "split": 5 << 20, "in_flight": 9 << 20, "timeout": 11.0, "retries": 13,
    "deadline": 120.0, "sorted_timestamps": True, "follow_links": True,
    "isolate_memory": 1 << 30, "isolate_deadline": 17.0,
}  # fmt: skip


def test_each_setting_of_reads_is_taken_from_the_environment() -> None:
    held = collect_env({f"DASK_LAZYNWB_DASK__{name}": value for name, value in GIVEN.items()})["lazynwb_dask"]
    with dask.config.set({f"lazynwb_dask.{name}": value for name, value in held.items()}):
        found = vars(config.settings())
    assert {name: found[name] for name in WANTED} == WANTED
    assert not hasattr(config.settings(), "isolate_memory")
