"""What runs the cells of a grid; one file each."""
