"""How good the explanations of live traffic are: sampling it, measuring, keeping the scores, choosing by them."""
