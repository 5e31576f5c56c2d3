"""Links and delivery between peers. Floor 4."""
