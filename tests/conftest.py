"""What all tests share: how hypothesis runs here."""

from hypothesis import settings

# The same examples in each run and on each machine: a failure is somebody's change, not luck. How long one example
# takes says something of the machine only.
settings.register_profile("repeatable", derandomize=True, deadline=None)
# To look for new failures: pytest --hypothesis-profile=explore
settings.register_profile("explore", max_examples=5000, deadline=None)
settings.load_profile("repeatable")
