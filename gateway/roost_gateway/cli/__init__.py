"""The `roost` command.

Exit status: 0 done, 1 the server said no, 2 the command line is wrong, 3 the server is not there.
Nothing here imports httpx or rich at import time: `roost --help` should be instant.
"""
