"""Running quantized models: executors of x @ quantized weight and their choice, models assembled from them, the decode engine."""
