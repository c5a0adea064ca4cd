"""The whole story in simulation: told over DDS, recorded, reported."""
