"""EnhancedDDPM: a pixel-space diffusion model with dilated convolutions and self-attention (METHODS.md, part A)."""
