"""The command ``emx``: one module for each command or group of commands."""
