"""DiDGen: region-aware fine-tuning, layout guidance, and masks from attention."""
