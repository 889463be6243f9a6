"""Drift and quality of models: samples of their calls, feedback, and what both say."""
