"""A small strict IoT Hub with fault switches, for a desk, a demo and the tests."""
