"""NWB's and HDMF's own terms over HDF5: tables, VectorIndex, TimeSeries, session metadata."""
