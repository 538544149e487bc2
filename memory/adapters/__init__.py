"""The wires outside: one vendor library per file, each behind a Protocol of `memory.ports`."""
