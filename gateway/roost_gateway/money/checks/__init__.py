"""What `reconcile` compares: each check looks at two places that count the same, and names every difference."""
