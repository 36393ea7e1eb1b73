"""What fan-out costs: odinws beside a bare send loop and its peers."""
