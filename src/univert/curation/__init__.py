"""From a query log to clean triplets: queries read, pictures rated, triplets made and judged."""
