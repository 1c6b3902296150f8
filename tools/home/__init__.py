"""The parts of `build_home.py`."""
