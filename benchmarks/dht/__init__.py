"""`make bench-dht`: ours and other DHTs on real sockets, in the same run.

`__main__.py` runs rounds of trials in random order; each trial is a process of its own, on one core (`children.py`,
`child.py`). `workload.py` is what every rival does (`hyperdht.js` says it again for node), `rpc.py` the benchmark of
single requests; `judge.py` turns trials into medians, ratios and verdicts, `table.py` shows them.
"""
