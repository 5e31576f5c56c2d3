"""Bad input for everything that parses bytes of strangers. `make fuzz TIME=600`; docs/security.md has the results."""
