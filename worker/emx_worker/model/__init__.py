"""The model: its checkpoint, its weights in 4 bits or whole, its adapter, and how it writes boxes."""

import logging

logging.getLogger("bitsandbytes").setLevel(logging.ERROR)  # it advises CPU kernels that this software doesn't use
