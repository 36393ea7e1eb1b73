"""Which worker runs which strategy: the flag `shard-strategy` in a file of flagd's format, by OpenFeature.

targeting   a targetingKey for each worker, so that shares are exact to a worker. Pure.
flags       the file: read, checked by its schema, and written with another share
evaluation  OpenFeature over flagd's evaluator: a worker's assignment, and whether the file still says so
members     servers and workers at one moment. Pure.
fleet       what the running servers have, read from `/stats`
comparison  what the workers of a variant did, and when that is worse than the others. Pure.
watch       step by step to all workers, or back
record      what a watch did, as JSON and Markdown
commands    `python -m odinws rollout …`
"""
