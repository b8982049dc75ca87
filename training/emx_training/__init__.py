"""Train and evaluate report models: phantoms, collections, two fine-tuning phases, the demo model."""

import logging

logging.getLogger("bitsandbytes").setLevel(logging.ERROR)  # it advises CPU kernels that this software doesn't use
