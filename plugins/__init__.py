"""Built-in plugins, registered through the same entry points as anybody else's."""
