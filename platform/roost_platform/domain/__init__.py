"""Frozen values and the error tree; imports nothing of Roost."""
