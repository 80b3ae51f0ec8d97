"""The operator: a pure brain (`brain.plan`) and hands that observe and act."""
