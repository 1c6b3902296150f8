"""The report of a run: one HTML page with tables, plots, pictures and the map."""
