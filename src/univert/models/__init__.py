"""The embedding network: base network, pooling, fully connected sets, L2 norm."""
