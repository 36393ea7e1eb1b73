"""Random histories of a real stream against a model: what was published is delivered or told, always."""
