"""The commands: one module each, no logic."""
