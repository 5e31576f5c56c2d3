# Stubs of kademlia 2.2.3, as far as @Once subclasses it and the benchmarks run it.
#
# `Any` stands where a subclass puts something of its own in place: what represents a node, a value, a protocol.
__version__: str
