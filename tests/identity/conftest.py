from tests.small_shop import catalogue, index, model

__all__ = ["catalogue", "index", "model"]
