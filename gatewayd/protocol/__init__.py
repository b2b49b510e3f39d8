"""What is said on the wires: no sockets, no loop, no clock, no log."""
