"""What knows nothing of files: threads, locks, bounded caches, buffers."""
