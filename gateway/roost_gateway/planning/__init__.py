"""Capacity planning: how much one replica holds, how many are needed, and by which scaling policy. Pure but for reading."""
