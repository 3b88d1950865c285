"""Clients, workers and events of Dask's distributed scheduler."""
