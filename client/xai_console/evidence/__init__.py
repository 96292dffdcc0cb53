"""One sample as evidence: everything that is kept of it, in one file that needs nothing else."""
