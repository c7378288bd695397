"""pix2pixHD: images from lesion masks by a conditional adversarial network."""
