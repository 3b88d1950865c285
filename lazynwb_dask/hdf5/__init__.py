"""HDF5's own structures: a file of which some blocks are here, links, object headers, chunk indexes, heaps."""
