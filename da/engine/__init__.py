"""One training path, for `fit` and for a cell of a grid, and what it leaves behind."""
