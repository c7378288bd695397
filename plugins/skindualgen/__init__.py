"""SkinDualGen: image and mask from one prompt, by a widened autoencoder and LoRA."""
