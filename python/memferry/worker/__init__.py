"""What a worker pod does: a stage of a MemoryMigration, told from a folder and the environment, answered in a Lease."""
