"""One client: its socket, its frames, what it asks for, its end."""
