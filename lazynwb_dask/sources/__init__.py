"""What the user named, as an ordered list of files."""
