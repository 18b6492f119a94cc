"""Trained networks as files for other programs: plain layers, compared with the original."""
