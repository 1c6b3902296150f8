"""A deployed model learns one more vertical, and the vectors in the index stay valid."""
