"""One folder per science, one file per system; no science imports another."""
