"""Studies small enough to be trained, killed and resumed many times in a test."""
