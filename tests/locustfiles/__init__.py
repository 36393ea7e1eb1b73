"""The swarm, as a library and through Locust's own command line."""

import os

# Locust patches the process that imports it, and all other tests of this process would run patched. The
# swarms that tests start must be patched: so the variable does not stay.
os.environ["LOCUST_SKIP_MONKEY_PATCH"] = "1"
import locust  # noqa: F401

del os.environ["LOCUST_SKIP_MONKEY_PATCH"]
