"""The data model that all formats are indexed into: sources, layouts, chunks, columns, tables."""
