"""The way of a message: from the feed to all who are subscribed, and to those who were away."""
