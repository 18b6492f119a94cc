"""What a trained network does to both domains, layer by layer."""
