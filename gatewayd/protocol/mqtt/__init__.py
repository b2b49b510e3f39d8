"""MQTT 3.1.1, sans-IO, both roles."""
