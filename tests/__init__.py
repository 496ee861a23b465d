"""The tests: `unit` has no sockets, `facts` asks gearmand itself, `relay` runs the program."""
