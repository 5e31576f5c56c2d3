"""`make bench`: messages between two processes over loopback TCP, ours and others', in the same run.

`__main__.py` runs rounds of trials in random order: each is one row of the table for one rival, in two processes of
their own (`children.py` starts the near one, `child.py` is both). `workload.py` is what every rival does over a plain
channel; ours and raw pyzmq do the same in their own words (`rivals/ours.py`, `rivals/raw.py`). `judge.py` turns trials
into medians, ratios against raw pyzmq in the same round, and verdicts; `table.py` shows them.
"""
