"""The Dask worker that runs a task, and reports to the client. The only package that uses distributed."""
