"""x @ quantized weight: the reference in plain torch, and models assembled from it."""
