"""Public collections of radiographs, brought into the two tables that training reads."""
