"""Spins on a periodic square lattice in equilibrium, where physics gives exact answers."""
