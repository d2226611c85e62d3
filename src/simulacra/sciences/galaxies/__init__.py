"""Images of galaxies, from surveys or simulated."""
