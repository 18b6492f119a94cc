"""Grids of runs: cells, workers, the store of results, statistics, tables."""
