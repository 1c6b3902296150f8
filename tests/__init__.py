"""What must be set before PyTorch is loaded, here and in the processes that tests start."""

import os
import sys

os.environ["OMP_NUM_THREADS"] = "1"  # two test processes on two cores: more threads only get in each other's way
os.environ["PYTHONDONTWRITEBYTECODE"] = ""  # else every process compiles all of PyTorch's modules anew
sys.dont_write_bytecode = False
os.environ.pop("COLUMNS", None)  # set for the workers of pytest-xdist; tables are as wide as they like
