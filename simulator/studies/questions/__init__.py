"""What a growth team asks, each answered as it would be in a shop, beside the world's truth: `make questions`."""
