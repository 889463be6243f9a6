"""`roost doctor`: looks at what an installation stands on, changes nothing, and says what to do."""
