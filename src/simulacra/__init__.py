"""simulacra: generative models for science, held to the statistics of the real thing."""

__version__ = "0.1.0"
