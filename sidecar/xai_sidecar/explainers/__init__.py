"""Saliency explainers: numpy in, numpy out. They say what passes of the model they need and never run one."""
