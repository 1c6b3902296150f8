"""In-batch miners: which triplets of a batch a loss should look at."""
