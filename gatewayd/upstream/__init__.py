"""The hub: dialling, the connect budget, and each identity's presence there."""
