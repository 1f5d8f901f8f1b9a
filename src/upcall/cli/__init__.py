"""The ``upcall`` command: one module a command group; each imports the rooms that it needs when it runs."""
