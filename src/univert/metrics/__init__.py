"""How good retrieval is: rankings, clusters, intervals, paired comparison."""
