"""One thread a test process: with two processes on two cores, more only get in each other's way."""

from __future__ import annotations

import os

os.environ["OMP_NUM_THREADS"] = "1"  # inherited by the processes that tests start

import torch

torch.set_num_threads(1)
