"""Revisions as processes of this machine."""
