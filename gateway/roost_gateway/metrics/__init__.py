"""The gateway's `/metrics`: each module turns what some part has counted into series, when asked and not before."""
