"""What finished runs say: statistics, tables, figures, the comparison with published numbers."""
