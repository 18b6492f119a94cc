"""What changes a trained network, or its outputs, on unlabelled images; one adapter per file."""
