"""x @ quantized weight: the reference in plain torch, faster executors and the choice between them, models assembled from them, the decode engine."""
