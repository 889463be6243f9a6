"""Uploads: checked in a throw-away process, stored by digest, numbered in versions."""
