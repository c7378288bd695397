"""Segmentation networks: trained on datasets, used to find lesions in images and to measure how alike images are."""
