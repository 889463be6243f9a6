"""Pure functions of time and numbers: windows, the KPA decider, the scale-to-zero rules."""
