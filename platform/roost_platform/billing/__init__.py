"""Price book and statements."""
