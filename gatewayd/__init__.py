"""A gateway daemon that keeps a fleet of devices at Azure IoT Hub."""
