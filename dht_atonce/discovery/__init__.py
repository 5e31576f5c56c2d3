"""How the first contact is found. Floor 4."""
