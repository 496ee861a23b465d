"""What a running relay tells about itself: the status queue, the control socket, the commands."""
