"""Molecules in three dimensions: atoms, formal charges, bonds and positions."""
