"""What a seed server keeps, and for how long."""

from dataclasses import dataclass

__all__ = ["SeedConfig"]


@dataclass(frozen=True, slots=True)
class SeedConfig:
    """The seed server."""

    directory_size: int = 200
    directory_life_s: float = 7200.0
    fresh_s: float = 60.0
    """When the newest answer is older and a newcomer arrives, the seed first looks up a random id."""
    max_contacts: int = 16
    check_s: float = 1.0
    """Contacts not heard of for so long are asked before they are named to a newcomer."""
    check_timeout_s: float = 1.0
    handshake_s: float = 30.0
    max_handshakes: int = 1024
    save_s: float = 30.0
    save_small_s: float = 2.0
    """The same while fewer than `small` are known."""
    small: int = 64
