"""Command-line interface: one module per group of commands. Parses flags, calls the work, prints."""
