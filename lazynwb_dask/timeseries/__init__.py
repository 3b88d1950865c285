"""One TimeSeries of one file as lazy Dask arrays."""
