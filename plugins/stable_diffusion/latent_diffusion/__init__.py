"""A small latent diffusion model from scratch: autoencoder, text encoder and U-Net of the Stable Diffusion kind."""
