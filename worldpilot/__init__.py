"""worldpilot: plan with a learned latent world model, swap the reward while it runs, know when the model fails."""

__version__ = "0.1.0"
