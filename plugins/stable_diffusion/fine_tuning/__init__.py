"""Fine-tuning a base on images and prompts, DreamBooth among it, and images from prompts alone."""
