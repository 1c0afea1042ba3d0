"""What the gateway's benches need: a mock upstream and a load generator in C, and the gateways."""
