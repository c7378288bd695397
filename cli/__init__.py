"""The front door: parse, call core, print."""
