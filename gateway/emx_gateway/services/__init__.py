"""What endpoints do, apart from HTTP."""
