"""The commands of ``emx``, one module for each group."""
