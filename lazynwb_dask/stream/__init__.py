"""The rows of a frame in order, some partitions at a time, for other libraries and for files."""
