"""Quantising: what comes out is the model's, nearly; what it costs is measured by paired comparison."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from univert.cli import exporting
from univert.cli.exporting import measure_int8
from univert.cli.options import app
from univert.core.errors import BadInputError
from univert.data.catalogue import Catalogue
from univert.models.embedder import Embedder
from univert.models.runtime.engine import INT8_FILE, ONNX_FILE, OnnxEngine, load_engine
from univert.models.runtime.int8 import export_int8

assert exporting


@pytest.fixture(scope="module")
def exported(
    model_folder: Path, catalogue: Catalogue, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, dict[str, str]]:
    """A model folder after `univert export --int8`, and what the command said."""
    folder = shutil.copytree(model_folder, tmp_path_factory.mktemp("model") / "model")
    result = CliRunner().invoke(app, ["export", str(folder), "--int8", str(catalogue.path), "--json"])
    assert result.exit_code in (0, 1), result.output
    return folder, json.loads(result.stdout)


def test_the_command_writes_both_files_and_says_what_int8_costs(
    exported: tuple[Path, dict[str, str]], catalogue: Catalogue
) -> None:
    folder, said = exported
    assert said["onnx"] == str(folder / ONNX_FILE)
    assert said["int8"] == str(folder / INT8_FILE)
    cost = said["cost"]
    assert isinstance(cost, dict)
    assert cost["images"] == len(catalogue)
    assert 0.9 < cost["cosine"] <= 1
    figures = cost["recall_at_1"]
    assert figures["low"] <= figures["difference"] <= figures["high"]
    assert figures["queries"] > 0
    assert sorted(path.name for path in folder.iterdir()) == sorted(
        ["README.md", "config.json", "model.safetensors", ONNX_FILE, INT8_FILE]
    )


def test_the_quantised_engine_is_the_models_and_smaller(exported: tuple[Path, dict[str, str]], model: Embedder) -> None:
    folder, _ = exported
    engine = load_engine(folder, "onnx-int8", threads=1)
    assert (engine.name, engine.fingerprint, engine.size) == ("onnx-int8", model.fingerprint, model.size)
    assert (folder / INT8_FILE).stat().st_size < 0.6 * (folder / ONNX_FILE).stat().st_size
    vectors = engine.run(np.random.default_rng(0).integers(0, 256, (5, 3, 64, 64), dtype=np.uint8))
    assert np.allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-5)


def test_an_exact_engine_costs_nothing(exported: tuple[Path, dict[str, str]], catalogue: Catalogue) -> None:
    engine = OnnxEngine(exported[0] / ONNX_FILE)
    cost = measure_int8(engine, engine, catalogue)
    assert cost.recall_at_1.difference == 0
    assert cost.recall_at_1.verdict == "same"
    assert cost.cosine == pytest.approx(1, abs=1e-6)


def test_too_few_images_are_refused(exported: tuple[Path, dict[str, str]]) -> None:
    with pytest.raises(BadInputError, match="at least 8 images"):
        export_int8(exported[0] / ONNX_FILE, np.zeros((3, 3, 64, 64), np.uint8))
