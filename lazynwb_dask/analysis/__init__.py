"""Analyses of several tables of the same files, on top of scans: spikes around events, and the like."""
