"""All partitions of one table over all files: what the expression carries, and each task a slice of."""
