"""Formats of exported files, one per file: found on disk by name."""
