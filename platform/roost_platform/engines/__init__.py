"""What runs revisions: the port, and one package per engine."""
