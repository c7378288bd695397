"""What methods on a Stable Diffusion base share: loading it, prompts, recorded attention, sampling."""
