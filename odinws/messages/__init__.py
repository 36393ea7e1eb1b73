"""How messages look: commands and envelopes, frames, compression."""
