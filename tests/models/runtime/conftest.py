from tests.serving.served import model_folder
from tests.small_shop import catalogue, model

__all__ = ["catalogue", "model", "model_folder"]
