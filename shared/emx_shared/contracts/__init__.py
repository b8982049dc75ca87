"""What crosses the rooms: the report, the finding vocabulary, the states."""
