"""A second process of a backend, at the lowest priority, for evaluation beside what the first one runs."""
