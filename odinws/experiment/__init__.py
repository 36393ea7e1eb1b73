"""The experiment: configurations side by side on the same feed, and an answer that can be believed.

plan        what is asked, of which arms, under which load
record      what was measured, line by line
measures    what there is to measure, and what difference matters
statistics  shifts, intervals, tests, correction
verdict     from numbers to words
checking    why an answer may not be worth much, and what to do
report      the answer for a terminal, for programs, and as a page
"""
