"""The journal (durable before the answer leaves) and the ledger (exactly once)."""
