"""What Redis knows of jobs: leases, marks and hints. All of it may vanish at any moment.

One module for each concern, the Lua scripts beside them; ``RedisState`` holds them together.
"""

from emx_shared.redis_state.job_marks import NEWS_CHANNEL, Standing
from emx_shared.redis_state.state import RedisState

__all__ = ["NEWS_CHANNEL", "RedisState", "Standing"]
