"""What outlives the process: one SQLite file, one thread, one connection."""
