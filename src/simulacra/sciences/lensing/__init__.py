"""Maps of the convergence of weak gravitational lensing, from a light cone, a survey or a simulator."""
