"""From files to a scan: table indexes, their cache, one schema for all files, partitions and tasks."""
