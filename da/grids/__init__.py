"""Grids of trainings: the file, the plan, tuning, the store of results, and what runs the cells."""
