"""Why an answer may not be worth much, and what to do about it. Pure."""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence

from odinws.experiment.kinds import Records, Trial
from odinws.experiment.measures import MEASURES
from odinws.experiment.plan import Plan
from odinws.experiment.result import Check, Row, Verdict
from odinws.experiment.samples import drifts
from odinws.experiment.statistics import ALPHA, rounds_needed
from odinws.experiment.words import percent

_PASSES = 20  # of the feed in a trial, below which percentiles of deliveries say little
_UNEQUAL = 0.02  # relative; what arms got may differ by the ends of their windows
_BURSTS = 2  # the same in bursts, where there are few messages
_DRIFT = 2.0  # of the smallest effect that matters
_MOST_ROUNDS = 100  # worth advising


def check_plan(plan: Plan) -> list[Check]:
    """What can be known before a run."""
    return [*_rounds(plan), *_seconds(plan), *_arms(plan)]


def check_records(records: Records, rows: Sequence[Row]) -> list[Check]:
    """What can be known after it.

    Args:
        rows: the comparisons made of it, for how sharp they are; may be empty.
    """
    plan = records.run.plan
    return [
        *_unfinished(records),
        *_limited(records.trials),
        *_counted(records.trials),
        *_unequal(plan, records.trials),
        *_order(plan, records.trials),
        *_baseline_losses(plan, rows),
        *_few_pairs(plan, rows),
        *_noisy(plan, rows),
        *_drifting(records),
        *_crowded(records),
        *check_plan(plan),
    ]


def _rounds(plan: Plan) -> Iterator[Check]:
    needed = rounds_needed()
    if plan.rounds < needed:
        yield Check(
            "error",
            f"{plan.rounds} rounds can't show a difference: the smallest p they give is "
            f"{2 ** (1 - plan.rounds):.2g}, and {ALPHA:.2g} is asked for",
            f"set rounds to {needed} or more",
        )


def _seconds(plan: Plan) -> Iterator[Check]:
    if plan.warmup_seconds == 0:
        yield Check(
            "warning",
            "nothing is cut away for warming up",
            "set warmup_seconds to 5 or so: caches, rings, JIT",
        )
    feeds = {arm.feed for arm in plan.arms if arm.feed.rate > 0}
    for feed in feeds:
        per_second = feed.rate / (feed.tokens if feed.spacing == "burst" else 1)
        passes = per_second * plan.measure_seconds
        if passes < _PASSES:
            longer = math.ceil(_PASSES / per_second)
            yield Check(
                "warning",
                f"a trial has {passes:.0f} passes of the feed: percentiles of deliveries rest on these alone",
                f"set measure_seconds to {longer} or more",
            )


def _arms(plan: Plan) -> Iterator[Check]:
    base = plan.baseline
    for arm in plan.others:
        if (arm.environ, arm.config, arm.feed, arm.load) == (base.environ, base.config, base.feed, base.load):
            yield Check("note", f"{arm.name} is the same as {base.name}: any difference is a false alarm")
        if arm.feed != base.feed or arm.load != base.load:
            yield Check(
                "note",
                f"{arm.name} gets another feed or load than {base.name}: "
                "what differs is what they were given, not the server",
            )


def _unfinished(records: Records) -> Iterator[Check]:
    if not records.complete:
        why = records.end.why or "the run was cut off"
        yield Check("error", f"the run is partial: {why}", "run it again to its end")
    for arm in records.run.plan.arms:
        failed = [trial for trial in records.trials if trial.arm == arm.name and trial.status == "failed"]
        if failed:
            yield Check(
                "error",
                f"{len(failed)} trials of {arm.name} failed; the first, round {failed[0].round}: "
                f"{failed[0].problem}",
                "mend what it says, and run it again",
            )


def _limited(trials: Sequence[Trial]) -> Iterator[Check]:
    by_arm: dict[str, list[Trial]] = defaultdict(list)
    for trial in trials:
        if trial.status == "ok":
            by_arm[trial.arm].append(trial)
    for arm, own in by_arm.items():
        limited = [trial for trial in own if trial.swarm.limited]
        if limited:
            yield Check(
                "warning",
                f"in {len(limited)} of {len(own)} trials of {arm} the swarm was the limit, not the server: "
                f"{limited[0].swarm.why}",
                "fewer connections or probes, or a swarm with more processes",
            )


def _counted(trials: Sequence[Trial]) -> Iterator[Check]:
    """What servers say they sent, against what the swarm counted: nobody believes a server about itself."""
    for trial in trials:
        counts = trial.counts
        if trial.status != "ok" or not {"server_delivered", "swarm_delivered"} <= counts.keys():
            continue
        sent = counts["server_delivered"]
        got = counts["swarm_delivered"] + counts.get("swarm_gaps", 0)
        # What a server gave up with a closing or slow client may have counted before.
        given_up = counts.get("server_undelivered", 0) + counts.get("server_shed", 0)
        if not sent - given_up <= got <= sent:
            yield Check(
                "error",
                f"round {trial.round} of {trial.arm}: /metrics has {sent:,} messages delivered, "
                f"the swarm counted {got:,}",
                "find out who is wrong before believing either; see the logs of this trial",
            )


def _unequal(plan: Plan, trials: Sequence[Trial]) -> Iterator[Check]:
    """Only what the plan gives to both may be expected to be the same."""
    base = plan.baseline
    by_round = {(trial.arm, trial.round): trial.assigned for trial in trials if trial.status == "ok"}
    for arm in plan.others:
        connections = messages = 0
        for number in range(plan.rounds):
            own, other = by_round.get((arm.name, number)), by_round.get((base.name, number))
            if own is None or other is None:
                continue
            if arm.load == base.load:
                connections += _differ(own.connections, other.connections, 1)
            if arm.feed == base.feed:
                allowed = _BURSTS * arm.feed.tokens
                published = _differ(own.messages_published, other.messages_published, allowed)
                moved = abs(own.first_seq - other.first_seq) > max(
                    allowed, _UNEQUAL * other.messages_published
                )
                messages += published or moved
        if connections:
            yield Check(
                "warning",
                f"{arm.name} and {base.name} held different numbers of connections "
                f"in {connections} of {plan.rounds} rounds",
                "look for refusals, and for trials that began before the ramp was over",
            )
        if messages:
            yield Check(
                "warning",
                f"{arm.name} and {base.name} heard different messages in {messages} of {plan.rounds} rounds",
                "see that the feed is replayed from its start in each trial",
            )


def _differ(one: int, other: int, allowed: int) -> bool:
    return abs(one - other) > max(allowed, _UNEQUAL * max(one, other))


def _order(plan: Plan, trials: Sequence[Trial]) -> Iterator[Check]:
    if plan.mode != "in-turn":
        return
    places = {(trial.arm, trial.round): trial.order for trial in trials if trial.status == "ok"}
    base = plan.baseline.name
    for arm in plan.others:
        rounds = [n for n in range(plan.rounds) if (arm.name, n) in places and (base, n) in places]
        before = Counter(places[arm.name, number] < places[base, number] for number in rounds)
        if len(rounds) > 1 and len(before) == 1:
            first, second = (arm.name, base) if before[True] else (base, arm.name)
            yield Check(
                "warning",
                f"{first} always went before {second}: what drifts in a round counts as a difference",
                "let them take turns in going first (ABBA)",
            )


def _baseline_losses(plan: Plan, rows: Sequence[Row]) -> Iterator[Check]:
    found = {row.measure: row.baseline_value for row in rows if MEASURES[row.measure].exact}
    for name, count in found.items():
        if count:
            yield Check(
                "error",
                f"{plan.baseline.name} itself has {MEASURES[name].title}: {count:,.0f}",
                "find out why before comparing anything with it",
            )


def _few_pairs(plan: Plan, rows: Sequence[Row]) -> Iterator[Check]:
    needed = rounds_needed()
    for row in rows:
        if row.measure == plan.primary and row.n < needed <= plan.rounds:
            yield Check(
                "error",
                f"only {row.n} rounds have a value of {row.arm} and of {row.baseline} for "
                f"{MEASURES[row.measure].title}: {needed} are needed",
                "run it again; see which trials are missing with `experiment show`",
            )


def _noisy(plan: Plan, rows: Sequence[Row]) -> Iterator[Check]:
    for row in rows:
        if row.measure != plan.primary or row.interval is None or row.n < 2 or row.minimum <= 0:
            continue
        if row.verdict in (Verdict.BETTER, Verdict.WORSE):
            continue  # the noise has not hidden it
        half = (math.log1p(row.interval[1]) - math.log1p(row.interval[0])) / 2
        wanted = math.log1p(row.minimum)
        if half > wanted:
            rounds = math.ceil(row.n * (half / wanted) ** 2)
            advice = (
                f"stop what else runs here, or set rounds to {rounds}"
                if rounds <= _MOST_ROUNDS
                else "stop what else runs here, or take longer trials: more rounds alone would not do"
            )
            yield Check(
                "warning",
                f"{MEASURES[row.measure].title} of {row.arm} is noisy: known to "
                f"±{percent(math.expm1(half), signed=False)}, "
                f"and {percent(row.minimum, signed=False)} would matter",
                advice,
            )


def _drifting(records: Records) -> Iterator[Check]:
    plan = records.run.plan
    moved = drifts(records.seconds)
    for arm in plan.arms:
        far = [
            f"{measure.title} {percent(math.expm1(move))}"
            for name, measure in MEASURES.items()
            if abs(move := moved.get((name, arm.name), 0.0)) > _DRIFT * math.log1p(plan.minimum(name))
        ]
        if far:
            yield Check(
                "warning",
                f"{arm.name} drifts within its trials, from the first third to the last: {', '.join(far)}",
                "warm up longer; if it goes on rising, something grows",
            )


def _crowded(records: Records) -> Iterator[Check]:
    plan, cores = records.run.plan, records.run.machine.cores
    if plan.mode == "together" and len(plan.arms) >= cores:
        yield Check(
            "note",
            f"{len(plan.arms)} servers and the swarm shared {cores} cores: "
            "latencies hold for such a machine only",
            'mode = "in-turn" gives each arm the whole machine',
        )
