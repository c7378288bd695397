"""Studies: arms of training data against each other on one fixed real test split, with statistics that can be believed."""
