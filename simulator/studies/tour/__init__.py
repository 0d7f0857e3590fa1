"""What a decision can mean, point by point, against a real server: `make tour`."""
