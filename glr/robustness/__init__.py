"""Attacks and corruptions, samples of them, and what networks keep on these."""
