"""Who looks at the server: what it tells of itself, and what checks that this is true."""
