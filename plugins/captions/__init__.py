"""Captions of dermoscopic images: measured, or written by a vision-language model."""
