"""Which verticals are trained together."""
