"""Statistics that several sciences share."""
