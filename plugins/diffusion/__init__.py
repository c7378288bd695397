"""What every diffusion method shares, in pixels or latents: the forward process, and ways from noise back."""
