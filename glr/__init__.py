"""Training neural networks from the loss value alone, by generalized likelihood ratios."""
