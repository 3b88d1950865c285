"""Made-up sessions for the demo, the documentation, the tests and the benchmarks.

The files look like those of a Neuropixels pipeline: a units table with quality metrics, labels and
spike times, trials and stimulus intervals, events, electrodes, behaviour, session and subject
metadata. h5py alone writes them, object by object in the order in which pynwb does, so that headers
and data lie in the file as they do in real ones.
"""

from lazynwb_dask.datasets.files import make_sessions

__all__ = ["make_sessions"]
