"""The files of a report, one format per module, each found on disk."""
