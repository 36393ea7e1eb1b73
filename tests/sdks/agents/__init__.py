"""Programs of one kind of client each: their argument is what they are told, their output what they see.

They end with their input. A record is a line of JSON, see `tests.sdks.records`.
"""
