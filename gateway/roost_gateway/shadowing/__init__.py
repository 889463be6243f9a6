"""Shadow traffic: copies of calls to another version, whose answers are compared and thrown away."""
