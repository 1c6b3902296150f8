"""Commands that run the service."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Annotated

import typer

from univert.cli.options import Json, app, model_folder


@app.command(epilog="Example: univert serve runs/shop/unified shop.index --port 8000")
def serve(
    model: Annotated[str | None, typer.Argument(help="A model folder, or a run; may come from the settings.")] = None,
    index: Annotated[
        str | None,
        typer.Argument(
            metavar="index", help="An index made with this model: a folder or s3://; may come from the settings."
        ),
    ] = None,
    host: Annotated[str | None, typer.Option(help="Address to listen on (127.0.0.1).")] = None,
    port: Annotated[int | None, typer.Option(help="Port to listen on (8000).")] = None,
    workers: Annotated[int | None, typer.Option(help="Worker processes (1).")] = None,
    settings: Annotated[Path | None, typer.Option(help="A TOML file with settings; see docs/serve.md.")] = None,
) -> None:
    """Serve visual search over HTTP: the page at /, the API, metrics."""
    from univert.core.errors import BadInputError

    try:
        from univert.serving.server import run_server
        from univert.serving.settings import FILE_VARIABLE, PREFIX, load_settings
    except ImportError as error:
        raise BadInputError(
            f"serving needs packages that are missing ({error.name}): pip install 'univert[serve]'"
        ) from None

    if settings is not None:
        os.environ[FILE_VARIABLE] = str(settings)
    given = {"model": model, "index": index, "host": host, "port": port, "workers": workers}
    for name, value in given.items():
        if value is not None:  # the workers read their settings from the environment, too
            os.environ[PREFIX + name.upper()] = str(value)
    os.environ[f"{PREFIX}MODEL"] = model_folder(load_settings().model)
    run_server(load_settings())


@app.command(epilog="Example: univert key warehouse-scanner")
def key(
    name: Annotated[str, typer.Argument(help="Who it is for: letters, digits, dots, dashes.")], as_json: Json = False
) -> None:
    """Make an API key for the service: the key for the client, and the line for the settings."""
    import json

    from univert.core.errors import BadInputError
    from univert.serving.limits import new_key

    if not re.fullmatch(r"[A-Za-z0-9._-]{1,64}", name):
        raise BadInputError(f"name must be 1 to 64 letters, digits, dots, dashes or underscores, got {name!r}")
    secret, line = new_key(name)
    if as_json:
        typer.echo(json.dumps({"key": secret, "line": line}))
        return
    typer.echo(f"key (give it to the client; it is not kept anywhere): {secret}")
    typer.echo(f'line (add it to api_keys in the settings):            "{line}"')
