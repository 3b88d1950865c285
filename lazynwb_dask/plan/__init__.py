"""From files to a scan: indexes, their cache, one schema over all files, partitions, and how tasks are cut."""
