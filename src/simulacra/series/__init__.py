"""Series in time as people have them: read from files, asked for in SQL, fetched from public archives; forecast and judged.

Stands above the verdict and below the sciences; it never imports families, nets or training: a forecaster receives its model.
"""
