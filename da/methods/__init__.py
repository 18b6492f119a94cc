"""One adaptation method per file: its loss function, then a small subclass."""
