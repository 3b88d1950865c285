"""SQL over tables of NWB files: what a statement needs is scanned by Dask, DuckDB does the rest."""
