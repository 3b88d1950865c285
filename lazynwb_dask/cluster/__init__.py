"""What a task knows of the Dask worker that runs it, and what it reports to the client.

The one room that uses distributed.
"""
