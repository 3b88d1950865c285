"""Progress bars on long work."""

from __future__ import annotations

from typing import Any


def progress_bar(total: int, description: str, delay: float = 2) -> Any:
    """A bar of tqdm over `total` files, after `delay` seconds, and only in terminals and notebooks."""
    from tqdm.auto import tqdm

    return tqdm(total=total, desc=description, unit="file", delay=delay, disable=None, leave=False)
