"""Language models and their decoding: autoregressive, speculative, speculative-speculative."""
