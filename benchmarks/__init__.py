"""How fast reads from an object store are, next to the other ways to read the same files.

``python -m benchmarks --help`` says what can be chosen. Modules that run inside a measured process
(`worker`, `answers`, `workloads`, `peers`) import nothing but what that process needs.
"""
