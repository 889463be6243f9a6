"""The HTTP door: control API, prediction path; its client and the `roost` command."""
