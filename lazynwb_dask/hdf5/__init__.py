"""The structures of HDF5: partially fetched files, links, object headers, chunk indexes, heaps."""
