"""Dead letters at work: the box, the command, and real job servers."""
