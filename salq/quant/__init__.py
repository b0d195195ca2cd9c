"""Pure arithmetic on one weight matrix: grids, learnable clipping, adapters, and what a quantized matrix is and weighs."""
