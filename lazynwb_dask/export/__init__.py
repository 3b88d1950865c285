"""Tables of many files written as datasets of Parquet, file by file."""
