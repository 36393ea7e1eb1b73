"""Which worker runs which strategy: the flag `shard-strategy` in a file of flagd's format, by OpenFeature.

places      a targetingKey for each worker, so that shares are exact to a worker. Pure.
flags       the file: read, checked by its schema, and written with another share
evaluation  OpenFeature over flagd's evaluator
chooser     one worker's choice, for its whole life
flagged     the same by the file, and whether that says otherwise by now
members     servers and workers at one moment. Pure.
fleet       what the running servers have, read from `/stats`
tally       what a group of workers did between two looks. Pure.
guards      when the workers of a variant do worse than the others. Pure.
watch       step by step to all workers, or back
record      what a watch did, as JSON and Markdown
commands    `python -m odinws rollout …`
"""
