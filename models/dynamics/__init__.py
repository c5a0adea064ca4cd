"""Models of what a proprioceptive state does next."""
