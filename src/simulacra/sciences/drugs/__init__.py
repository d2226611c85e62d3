"""Drug-like molecules as strings: language models of SMILES, their tuning, fingerprints with wished properties, prototypes."""
