"""Helper processes in which libhdf5 reads the metadata of untrusted files."""
