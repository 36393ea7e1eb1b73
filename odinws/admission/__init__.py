"""Who gets in: what the server uses, what it can bear, and who serves whom."""
