"""The command line. Wiring only: the phases do the work."""
