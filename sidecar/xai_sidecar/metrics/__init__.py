"""Measures of how good a saliency map is: numpy in, numbers out. Like explainers, they ask for passes and run none."""
