"""Questions to a file's metadata, whatever its format: opened here and nowhere else."""
