from tests.small_shop import catalogue, model

__all__ = ["catalogue", "model"]
