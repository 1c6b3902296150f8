"""What the unified model learns to reproduce: members, their alignment and joining, and the choice of models."""
