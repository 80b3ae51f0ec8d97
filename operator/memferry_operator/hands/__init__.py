"""What touches the world: the API server, time, processes."""
