"""What an operator does with the program: check, reload, read its log, stop it."""
