# Stubs of rpcudp 5.0.1, as far as @Once subclasses it.
__version__: str
