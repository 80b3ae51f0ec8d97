"""The phases of a migration: plan, copy, verify, rollback, and `migrate`, which runs them."""
