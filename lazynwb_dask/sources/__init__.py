"""The paths and URLs that users give, as an ordered list of files."""
