"""What a training job leaves in its folder besides its checkpoint; apart from the work itself, which needs torch."""

METRICS = "metrics.json"
FACTS = "job.json"
TRAINING_DATA = "training_data.jsonl"
VALIDATION_DATA = "validation_data.jsonl"
FURTHER_TESTS = "external"
