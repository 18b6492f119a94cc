"""One file per sub-command of run.py."""
