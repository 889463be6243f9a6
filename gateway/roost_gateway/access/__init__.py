"""Who may do what: tenants, their keys, and the directory that answers from memory."""
