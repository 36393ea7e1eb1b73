"""Experiments that show what a choice does, on the real parts."""
