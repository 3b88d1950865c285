"""Conditions on rows: a small tree that travels in graphs, evaluated by pandas."""
