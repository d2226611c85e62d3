"""Two-phase microstructures: volumes of solid and pore, simulated with exact statistics or seen by micro-computed tomography."""
