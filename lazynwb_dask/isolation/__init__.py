"""Helper processes in which libhdf5 reads metadata of files that nobody vouches for."""
