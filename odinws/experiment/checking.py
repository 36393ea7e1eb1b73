"""Why an answer may not be worth much, and what to do about it. Pure."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Collection, Iterator, Sequence

from odinws.experiment import causes
from odinws.experiment.kinds import Records, Trial
from odinws.experiment.measures import MEASURES
from odinws.experiment.plan import Plan
from odinws.experiment.result import Check, Row, Verdict, percent
from odinws.experiment.samples import drifts
from odinws.experiment.statistics import ALPHA, rounds_needed

_PASSES = 20  # of the feed in a trial, below which percentiles of deliveries say little
_UNEQUAL = 0.02  # relative; what arms got may differ by the ends of their windows
_BURSTS = 2  # the same in bursts, where there are few messages
_DRIFT = 2.0  # of the smallest effect that matters
_MOST_ROUNDS = 100  # worth advising


def check_plan(plan: Plan) -> list[Check]:
    """What can be known before a run."""
    return [*_length(plan), *_arms(plan)]


def check_records(records: Records, rows: Sequence[Row]) -> list[Check]:
    """What can be known after it; the comparisons made of it, if any, for how sharp they are."""
    plan = records.run.plan
    primary = [row for row in rows if row.measure == plan.primary]
    good = {(trial.arm, trial.round): trial for trial in records.trials if trial.status == "ok"}
    return [
        *_unfinished(records),
        *_failed_attempts(plan, good.values()),
        *_limited(plan, good.values()),
        *_counted(good.values()),
        *_unequal(plan, good),
        *_order(plan, good),
        *_baseline_losses(plan, rows),
        *_few_pairs(plan, primary),
        *_noisy(primary),
        *_drifting(records),
        *_crowded(records),
        *check_plan(plan),
    ]


def _length(plan: Plan) -> Iterator[Check]:
    if plan.rounds < (needed := rounds_needed()):
        least = f"the smallest p they give is {2 ** (1 - plan.rounds):.2g}, and {ALPHA:.2g} is asked for"
        text = f"{plan.rounds} rounds can't show a difference: {least}"
        yield Check("error", text, f"set rounds to {needed} or more")
    if plan.warmup_seconds == 0:
        advice = "set warmup_seconds to 5 or so: caches, rings, JIT"
        yield Check("warning", "nothing is cut away for warming up", advice)
    for feed in {arm.feed for arm in plan.arms if arm.feed.rate > 0}:
        per_second = feed.rate / (feed.tokens if feed.spacing == "burst" else 1)
        passes = per_second * plan.measure_seconds
        if passes < _PASSES:
            rest = "percentiles of deliveries rest on these alone"
            text = f"a trial has {passes:.0f} passes of the feed: {rest}"
            yield Check("warning", text, f"set measure_seconds to {math.ceil(_PASSES / per_second)} or more")


def _arms(plan: Plan) -> Iterator[Check]:
    base = plan.baseline
    for arm in plan.others:
        given = (arm.feed, arm.load) == (base.feed, base.load)
        if given and (arm.environ, arm.config) == (base.environ, base.config):
            yield Check("note", f"{arm.name} is the same as {base.name}: any difference is a false alarm")
        if not given:
            text = f"{arm.name} gets another feed or load than {base.name}"
            yield Check("note", f"{text}: what differs is what they were given, not the server")


def _unfinished(records: Records) -> Iterator[Check]:
    if not records.complete:
        why = records.end.why or "the run was cut off"
        yield Check("error", f"the run is partial: {why}", "run it again to its end")
    for arm in records.run.plan.arms:
        failed = [trial for trial in records.trials if trial.arm == arm.name and trial.status == "failed"]
        if failed:
            first = f"the first, round {failed[0].round}: {failed[0].problem}"
            text = f"{len(failed)} trials of {arm.name} failed; {first}"
            yield Check("error", text, "mend what it says, and run it again")


def _failed_attempts(plan: Plan, good: Collection[Trial]) -> Iterator[Check]:
    """Clients come back, so a trial can be sound in which some attempts failed."""
    for arm in plan.arms:
        errors = causes.summed(trial.errors for trial in good if trial.arm == arm.name)
        if errors:
            text = f"connections to {arm.name} failed, and came back: {causes.in_words(errors)}"
            yield Check("note", text, causes.advice(errors))


def _limited(plan: Plan, good: Collection[Trial]) -> Iterator[Check]:
    for arm in plan.arms:
        own = [trial for trial in good if trial.arm == arm.name]
        if limited := [trial.swarm for trial in own if trial.swarm.limited]:
            where = f"in {len(limited)} of {len(own)} trials of {arm.name}"
            text = f"{where} the swarm was the limit, not the server: {limited[0].why}"
            yield Check("warning", text, "fewer connections or probes, or a swarm with more processes")


def _counted(good: Collection[Trial]) -> Iterator[Check]:
    """What servers say they sent, against what the swarm counted: nobody believes a server about itself."""
    for trial in good:
        counts = trial.counts
        if not {"server_delivered", "swarm_delivered"} <= counts.keys():
            continue
        sent = counts["server_delivered"]
        got = counts["swarm_delivered"] + counts.get("swarm_gaps", 0)
        # What a server gave up with a closing or slow client may have counted before.
        given_up = counts.get("server_undelivered", 0) + counts.get("server_shed", 0)
        if not sent - given_up <= got <= sent:
            said = f"/metrics has {sent:,} messages delivered, the swarm counted {got:,}"
            advice = "find out who is wrong before believing either; see the logs of this trial"
            yield Check("error", f"round {trial.round} of {trial.arm}: {said}", advice)


def _pairs(plan: Plan, arm: str, good: dict[tuple[str, int], Trial]) -> list[tuple[Trial, Trial]]:
    """The trials of an arm and of the baseline, of the rounds that have both."""
    keys = [((arm, number), (plan.baseline.name, number)) for number in range(plan.rounds)]
    return [(good[own], good[other]) for own, other in keys if own in good and other in good]


def _unequal(plan: Plan, good: dict[tuple[str, int], Trial]) -> Iterator[Check]:
    """Only what the plan gives to both may be expected to be the same."""
    base = plan.baseline
    for arm in plan.others:
        pairs = [(own.assigned, other.assigned) for own, other in _pairs(plan, arm.name, good)]
        burst = _BURSTS * arm.feed.tokens
        held = [
            abs(a.connections - b.connections) > max(1, _UNEQUAL * a.connections, _UNEQUAL * b.connections)
            for a, b in pairs
        ]
        heard = [
            abs(a.messages_published - b.messages_published) > max(burst, _UNEQUAL * a.messages_published)
            or abs(a.first_seq - b.first_seq) > max(burst, _UNEQUAL * b.messages_published)
            for a, b in pairs
        ]
        both = f"{arm.name} and {base.name}"
        if arm.load == base.load and any(held):
            text = f"{both} held different numbers of connections in {sum(held)} of {plan.rounds} rounds"
            advice = "look for refusals, and for trials that began before the ramp was over"
            yield Check("warning", text, advice)
        if arm.feed == base.feed and any(heard):
            text = f"{both} heard different messages in {sum(heard)} of {plan.rounds} rounds"
            yield Check("warning", text, "see that the feed is replayed from its start in each trial")


def _order(plan: Plan, good: dict[tuple[str, int], Trial]) -> Iterator[Check]:
    for arm in plan.others if plan.mode == "in-turn" else ():
        before = Counter(own.order < other.order for own, other in _pairs(plan, arm.name, good))
        if before.total() > 1 and len(before) == 1:
            first, second = (arm, plan.baseline) if before[True] else (plan.baseline, arm)
            text = f"{first.name} always went before {second.name}"
            why = "what drifts in a round counts as a difference"
            yield Check("warning", f"{text}: {why}", "let them take turns in going first (ABBA)")


def _baseline_losses(plan: Plan, rows: Sequence[Row]) -> Iterator[Check]:
    found = {row.measure: row.baseline_value for row in rows if MEASURES[row.measure].exact}
    for name, count in found.items():
        if count:
            text = f"{plan.baseline.name} itself has {MEASURES[name].title}: {count:,.0f}"
            yield Check("error", text, "find out why before comparing anything with it")


def _few_pairs(plan: Plan, rows: Sequence[Row]) -> Iterator[Check]:
    needed = rounds_needed()
    for row in rows:
        if row.n < needed <= plan.rounds:
            what = f"a value of {row.arm} and of {row.baseline} for {MEASURES[row.measure].title}"
            advice = "run it again; see which trials are missing with `experiment show`"
            yield Check("error", f"only {row.n} rounds have {what}: {needed} are needed", advice)


def _noisy(rows: Sequence[Row]) -> Iterator[Check]:
    for row in rows:
        if row.interval is None or row.n < 2 or row.minimum <= 0:
            continue
        if row.verdict in (Verdict.BETTER, Verdict.WORSE):
            continue  # the noise has not hidden it
        half = (math.log1p(row.interval[1]) - math.log1p(row.interval[0])) / 2
        wanted = math.log1p(row.minimum)
        if half > wanted:
            known, matters = percent(math.expm1(half), signed=False), percent(row.minimum, signed=False)
            what = f"{MEASURES[row.measure].title} of {row.arm} is noisy"
            rounds = math.ceil(row.n * (half / wanted) ** 2)
            more = "take longer trials: more rounds alone would not do"
            advice = f"set rounds to {rounds}" if rounds <= _MOST_ROUNDS else more
            text = f"{what}: known to ±{known}, and {matters} would matter"
            yield Check("warning", text, f"stop what else runs here, or {advice}")


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
            text = f"{arm.name} drifts within its trials, from the first third to the last: {', '.join(far)}"
            yield Check("warning", text, "warm up longer; if it goes on rising, something grows")


def _crowded(records: Records) -> Iterator[Check]:
    plan, cores = records.run.plan, records.run.machine.cores
    if plan.mode == "together" and len(plan.arms) >= cores:
        text = f"{len(plan.arms)} servers and the swarm shared {cores} cores"
        advice = 'mode = "in-turn" gives each arm the whole machine'
        yield Check("note", f"{text}: latencies hold for such a machine only", advice)
