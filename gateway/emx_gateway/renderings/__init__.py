"""A report as text, HTML, PDF or a picture: pure functions."""
