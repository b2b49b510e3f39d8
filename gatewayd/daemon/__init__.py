"""The long-running process: configuration, assembly, life cycle, status."""
