"""memferry moves an agent's memory from any backend to any other and proves that nothing was lost."""
