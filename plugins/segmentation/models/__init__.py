"""Segmentation architectures by name."""
