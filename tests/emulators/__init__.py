"""Stand-ins for the three clouds, on 127.0.0.1, and a proxy that makes the network bad."""
