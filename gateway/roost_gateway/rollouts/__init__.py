"""Rollouts that judge themselves: evidence from real calls, decisions, and who is told of them."""
