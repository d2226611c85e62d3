"""Algorithms on tensors: they receive their networks as arguments and know no science."""
