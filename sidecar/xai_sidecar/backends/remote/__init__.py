"""A model on another server as a backend: its passes are calls by the Open Inference Protocol."""
