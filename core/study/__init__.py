"""Studies: arms of training data against each other on one fixed real test split, and what follows from the numbers."""
