"""Showers in calorimeters."""
