"""Bytes over TCP and TLS, and one timer wheel for all who wait."""
