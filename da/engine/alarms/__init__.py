"""What a training says of itself while it runs: that something in it can hardly be meant."""
