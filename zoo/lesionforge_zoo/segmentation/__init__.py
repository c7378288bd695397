"""Segmentation networks that the papers train on their synthetic data, as architectures of the trainer."""
