"""Pictures of trained networks side by side, one per file, each with its numbers."""
