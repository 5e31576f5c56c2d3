"""The virtual world: the code that runs in production, under a clock that jumps and a network that is made up."""
