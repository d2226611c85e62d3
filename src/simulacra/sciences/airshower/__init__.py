"""Radio traces of cosmic-ray air showers: a short pulse in noise, recorded by an antenna, measured or simulated."""
