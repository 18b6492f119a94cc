"""One family of networks per file; a backbone exposes `num_features`."""
