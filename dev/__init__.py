"""What serves the development of this package and does not ship with it."""
