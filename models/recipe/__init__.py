"""Training when data are scarce and time is not: search, ensembles, distillation, and what they are worth in data."""
