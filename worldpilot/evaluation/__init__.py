"""Success rates of policies on a simulated task, side by side on the same starts and goals."""
