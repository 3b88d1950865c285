"""Catalogs: what many NWB files hold, indexed once, kept as Parquet files in a folder of any store."""
