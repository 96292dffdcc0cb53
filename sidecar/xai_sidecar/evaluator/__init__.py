"""Quality of explanations on live traffic: sampling, measuring, storing scores, and choosing an explainer by them."""
