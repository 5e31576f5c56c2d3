"""Hostile peers: they speak the protocol of docs/wire.md, have keys that are good, know each other, and mean harm.

`kinds` names what there is, as a scenario does; `gang` is what those of one step share; `rogues` are its members, made
of the nodes that run in production; `lies`, `seats`, `records` and `floods` are what they do; `underworld` places them.
"""
