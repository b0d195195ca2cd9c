"""How good a quantized model is: perplexity, divergence from the original, and the error of every matrix."""
