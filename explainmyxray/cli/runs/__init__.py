"""Runs: many image files through a server as batches, resumed wherever they were interrupted."""
