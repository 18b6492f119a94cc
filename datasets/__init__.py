"""One benchmark per file: its domains, their splits and how its images are augmented."""
