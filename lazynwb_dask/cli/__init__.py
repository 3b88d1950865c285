"""The command `lazynwb-dask`."""
