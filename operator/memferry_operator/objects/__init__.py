"""Bodies of the objects that the operator makes."""
