"""The experiment: configurations side by side on the same feed, and an answer that can be believed.

plan        what is asked, of which arms, in which order, under which load
measures    what there is to measure, and what difference matters
kinds       what a run leaves behind; record writes and reads it, line by line
arms        servers; load, swarms; feed, what they hear
scrape      what a server tells of itself
block       servers, swarms and feed of one moment; outcome, what is recorded of it
run         all trials of a plan; progress, what is shown meanwhile
samples     from records to one value for each measure, arm and round
statistics  shifts, intervals, tests, correction
checking    why an answer may not be worth much, and what to do
verdict     from records to a result
report      the result on a terminal, for programs, and as a page
"""
