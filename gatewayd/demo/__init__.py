"""A whole fleet on one machine: emulator, daemon and clients that others wrote."""
