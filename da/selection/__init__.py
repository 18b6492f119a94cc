"""Scores for choosing a model without target labels, one per file."""
