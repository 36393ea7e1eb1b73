"""Whatever comes from outside, thrown at what reads it: `python -m tests.fuzz --seconds 60 --seed 1`.

targets      what must hold for any bytes, one function for each reader; all of the following call these
corpus       inputs that are kept: good ones, bad ones, and all that ever failed; the tests replay each
structured   inputs that are nearly right, made by hypothesis
mutation     inputs that were right once: corpus files, changed at random by a seed
campaign     tries mutations for a time, and keeps the least input that fails
"""
