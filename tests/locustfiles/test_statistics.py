"""What Locust is told in bulk is what it would have been told one by one."""

from __future__ import annotations

from locust.stats import RequestStats

from odinws.swarm.flow import Chain, Hole, Step
from odinws.swarm.locust_stats import Reporter
from odinws.swarm.tally import Tally, merged


def test_reports() -> None:
    """Counts, times and failures are new only once."""
    stats, tally = RequestStats(), Tally()
    reporter = Reporter(stats)
    for ms in (1.0, 1.0, 50.0):
        tally.times["delivery"].add(ms)
    tally.counts |= {"delivered": 1000, "lost": 3, "failed": 2}
    reporter.report(tally)
    reporter.report(tally)
    tally.counts["delivered"] += 1
    reporter.report(tally)
    delivery, message, connect = (stats.get(name, "WS") for name in ("delivery", "message", "connect"))
    assert (delivery.num_requests, round(delivery.median_response_time)) == (3, 1)
    assert abs(delivery.max_response_time - 50) < 2
    assert (message.num_requests, message.num_none_requests, message.num_failures) == (1001, 1001, 3)
    assert (connect.num_requests, connect.num_failures) == (2, 2)
    assert (stats.total.num_requests, stats.total.num_failures) == (1006, 5)
    assert sum(message.num_reqs_per_sec.values()) == 1001
    assert {error.error: error.occurrences for error in stats.errors.values()} == {
        "lost": 3,
        "not connected and subscribed": 2,
    }


def test_the_sum_over_processes() -> None:
    """Counts and histograms add up; of CPU and stall the worst counts."""
    parts = []
    for cpu in (30.0, 95.0):
        tally = Tally()
        step = Step()
        step.messages = 2
        tally.take(step, 5, 0.0)
        tally.times["ack"].add(3.0)
        tally.errors["closed with 1012"] += 1
        own = {"connected": 7, "swarm_cpu_percent": cpu, "swarm_stall_ms": 1.0}
        parts.append(tally.snapshot() | own)
    whole = merged(parts)
    assert (whole["delivered"], whole["connected"], whole["swarm_cpu_percent"]) == (20, 14, 95.0)
    assert sum(whole["histograms"]["ack"]) == 2
    assert whole["errors"] == {"closed with 1012": 2}
    assert merged([])["delivered"] == 0


def test_a_hole_is_counted_when_others_have_filled_it() -> None:
    """Not at once: what is missing here may be on its way to those who will say how much it was."""
    tally, chain, step = Tally(), Chain(), Step()
    step.holes = [Hole("a", 1, 4)]
    tally.take(step, 2, 10.0)
    tally.settle(chain, 10.5)
    assert tally.counts["lost"] == 0
    for seq in (2, 3, 4):
        chain.note("a", seq, seq - 1)
    tally.settle(chain, 11.0)
    tally.settle(chain, 12.0)
    assert tally.counts["lost"] == 6
