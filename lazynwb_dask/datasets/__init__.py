"""Example data: made-up sessions for the documentation, tests and first steps.

The files look like those of a Neuropixels pipeline: a units table with quality metrics, labels and spike times,
trials and stimulus intervals, events, electrodes, behavior, session and subject metadata. `make_sessions`
writes them.
"""

from lazynwb_dask.datasets.files import make_sessions

__all__ = ["make_sessions"]
