"""The shell command ``dream-sc``: `main` reads the arguments, each command has a module of its own."""
