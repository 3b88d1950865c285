"""What may be asked of a file, and the formats that files have: the one door to these."""
