"""PromptControl: ControlNet on a mask and a prompt, and the lesion masks that it is given."""
