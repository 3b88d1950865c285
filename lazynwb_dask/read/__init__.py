"""One partition to one pandas frame: which bytes, in which order, for which rows. Knows no Dask."""
