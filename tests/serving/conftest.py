from tests.serving.served import client, model_folder, photo, server
from tests.small_shop import catalogue, index, model

__all__ = ["catalogue", "client", "index", "model", "model_folder", "photo", "server"]
