"""Proxies: learned points that stand for products."""
