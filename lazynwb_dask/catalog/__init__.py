"""Catalogs: the index of many NWB files, stored as Parquet files in a folder of any store."""
