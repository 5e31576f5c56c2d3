"""Does the simulation predict reality? The same network twice: as processes on loopback, and in a virtual world."""
