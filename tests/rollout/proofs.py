"""The proofs: a rollout that nobody notices, a broken file, and one that hurts and is taken back."""

from __future__ import annotations

import time
from collections.abc import Callable

from odinws.rollout.fleet import Fleet
from odinws.rollout.members import wanted
from odinws.rollout.record import Record
from odinws.rollout.watch import Pace, Watch
from tests.protection.proof import Proof
from tests.rollout.scene import SABOTAGED, VARIANT, Plan, Scene, scene
from tests.server import wait_for

WITHIN_SECONDS = 60.0  # a variant that hurts is taken back


def steps(plan: Plan, shares: tuple[int, ...] = (25, 100)) -> Proof:
    """From 0 through `shares`; then the file breaks, and is mended."""
    proof = Proof(f"{plan.clients:,} resuming clients, {plan.workers} workers, 0 to {shares} %")
    with scene(plan) as running:
        had = 0
        for share in shares:
            before, began = running.pids(), time.monotonic()
            running.give(share)
            count = wanted(Fleet([running.server.admin]).read(), share)[running.server.admin]
            running.await_workers(count)
            proof.fact(f"to {share} %", f"{count} workers in {time.monotonic() - began:.1f} s")
            replaced = len(before - running.pids())
            proof.check(f"{share} %: only those that change", replaced == count - had, replaced)
            had = count
        _break(proof, running, had)
        running.judge(proof)
    return proof


def _break(proof: Proof, running: Scene, had: int) -> None:
    good, before, server = running.path.read_text(), running.pids(), running.server
    running.path.write_text(good[:40])
    wait_for(lambda: any("flags" in text for text in server.json("/health")["warnings"]), 10, "a warning")
    proof.check("a broken file is told", "not JSON" in server.json("/stats")["strategy"]["problem"], "")
    running.path.write_text(good)
    wait_for(lambda: not server.json("/stats")["strategy"]["problem"], 10, "no problem any more")
    proof.check("it replaces nobody", running.pids() == before, len(before))
    log = running.server.log()
    proof.check("the log has it", "flags can't be used" in log, "")
    running.await_workers(had)


def sabotaged(plan: Plan, pace: Pace, tell: Callable[[str, str], None] = lambda *_: None) -> Proof:
    """Each pass of a worker with the variant takes 10 ms more: `watch` must take it back."""
    proof = Proof(f"{plan.clients:,} resuming clients, {plan.workers} workers, {VARIANT} sabotaged")
    faults = {"SABOTAGE_STRATEGY": VARIANT, "SABOTAGE_PASS_MS": "10"}
    with scene(plan, faults, SABOTAGED) as running:
        record, seconds = _watch(running, pace, tell)
        proof.fact("took", f"{seconds:.1f} s")
        proof.fact("because", record.reason)
        proof.check("it was set back", record.verdict == "set back", record.verdict)
        proof.check("the report says why", "CPU per delivered message" in record.markdown(), record.reason)
        proof.check(f"within {WITHIN_SECONDS:g} s", seconds < WITHIN_SECONDS, f"{seconds:.1f} s")
        running.await_workers(0)
        running.judge(proof)
    return proof


def harmless(plan: Plan, pace: Pace, tell: Callable[[str, str], None] = lambda *_: None) -> Proof:
    """Nothing is wrong with the variant: `watch` must bring it to all workers."""
    proof = Proof(f"{plan.clients:,} resuming clients, {plan.workers} workers, {VARIANT} watched")
    with scene(plan) as running:
        record, seconds = _watch(running, pace, tell)
        proof.fact("took", f"{seconds:.1f} s")
        proof.check("it is done", record.verdict == "done", record.reason)
        running.await_workers(plan.workers)
        running.judge(proof)
    return proof


def _watch(running: Scene, pace: Pace, tell: Callable[[str, str], None]) -> tuple[Record, float]:
    began = time.monotonic()
    record = Watch(Fleet([running.server.admin]), str(running.path), VARIANT, pace, tell).run()
    return record, time.monotonic() - began
