"""A scan: all partitions of one table over all files. Expressions hold it, and each task a slice of it."""
