"""LINDI files: JSON that describes HDF5 files, or holds their chunks."""
