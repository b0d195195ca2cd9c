"""Which weights matter: the Fisher diagonal of a model, maps of it on disk, and their reductions for pictures."""
