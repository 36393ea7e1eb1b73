"""What the predecessor's test printed on 25 October 2025, to stand beside ours. See docs/investigation.md."""

TITLE = "The predecessor (Go, 4 vCPU), 100 connections/s to 7000, 19.2 messages/s, 25 October 2025"
ROWS = (  # time, attempts, active, failed, success rate, server CPU
    ("10s", 990, 990, 0, "100.0%", "24.7%"),
    ("20s", 1990, 1990, 0, "100.0%", "47.5%"),
    ("30s", 3000, 2040, 950, "68.3%", "17.0%"),
    ("40s", 4000, 2490, 1500, "62.5%", "17.7%"),
    ("50s", 4990, 3490, 1500, "69.9%", "71.2%"),
    ("60s", 5990, 3540, 2450, "59.1%", "20.3%"),
    ("70s", 6981, 3980, 3000, "57.0%", "20.3%"),
    ("FINAL", 7000, 4000, 3000, "57.1%", "100.0% (peak)"),
)
