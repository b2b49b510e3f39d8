"""Devices: who may come in, and one MQTT session for each that did."""
