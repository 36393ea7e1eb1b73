"""A model of load and admission: what the predecessor's policy does to a server, and what ours does."""
