"""Convert public collections of radiographs into the two tables that training reads."""
