"""How many pictures there are."""

SCENES = 700
VIEW_COUNT = 3
