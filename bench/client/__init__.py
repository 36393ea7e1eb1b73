"""The measuring client: a C program and what drives it."""
