"""One file per sub-command, and what they share in those that begin with an underscore."""
