"""What joins devices to the hub: routing, custody, renewal."""
