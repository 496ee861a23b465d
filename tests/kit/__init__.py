"""Job servers, peers, links and the relay as a process: an independent witness for the tests.

Nothing in here imports the program: it speaks Gearman with plain sockets, threads and struct,
so that a mistake in the program's own wire code cannot hide in the tests.
"""
