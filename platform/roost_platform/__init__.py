"""What Roost knows and decides; no HTTP server framework in here."""
