"""IoT Hub's conventions over MQTT and AMQP."""
