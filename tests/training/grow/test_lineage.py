import subprocess
import sys
from pathlib import Path

import pytest

from univert.core.errors import BadInputError
from univert.models.embedder import Embedder, EmbedderConfig
from univert.training.grow.lineage import Growth, Lineage, deployed_model


def save_model(folder: Path, size: int) -> str:
    config = EmbedderConfig(
        base_network="timm/test_efficientnet", pretrained=False, hidden_sizes=(), size=size, image_size_px=32
    )
    model = Embedder(config)
    model.save_pretrained(folder, overwrite=True)
    return model.fingerprint


def publish(lineage: Lineage, vertical: str, indexed_by: str | None = None) -> Lineage:
    number = len(lineage.growths) + 1
    folder = f"grown/{number}-{vertical}"
    fingerprint = save_model(lineage.run_path / folder / "unified", 3 + number)
    return lineage.publish(
        Growth(
            number=number,
            vertical=vertical,
            folder=folder,
            model_fingerprint=fingerprint,
            vectors_of=lineage.vectors_of(indexed_by),
            forced=False,
        )
    )


@pytest.fixture
def run_path(tmp_path: Path) -> Path:
    save_model(tmp_path / "unified", 3)
    (tmp_path / "groups.json").write_text('{"groups": [["tops"], ["bags", "hats"]]}')
    return tmp_path


def test_each_vertical_keeps_the_vectors_it_came_in_with(run_path: Path) -> None:
    lineage = publish(publish(Lineage.read(run_path), "shoes"), "rings")
    assert Lineage.read(run_path) == lineage
    first, second, third = lineage.models
    assert lineage.verticals == ("bags", "hats", "tops", "shoes", "rings")
    assert lineage.vectors_of() == {"bags": first, "hats": first, "tops": first, "shoes": second, "rings": third}
    assert deployed_model(run_path) == run_path / "grown/2-rings/unified"
    assert lineage.models_since() == [first, second, third]


def test_an_index_made_later_holds_the_vectors_of_its_own_model(run_path: Path) -> None:
    grown = publish(Lineage.read(run_path), "shoes")
    lineage = publish(grown, "rings", indexed_by=grown.deployed)
    first, second, third = lineage.models
    assert lineage.models_since(first) == [first, second], "the third was held to other vectors"
    assert lineage.vectors_of(second) == {**dict.fromkeys(["bags", "hats", "tops", "shoes"], second), "rings": third}
    assert lineage.models_since(second) == [second, third]
    with pytest.raises(BadInputError, match="made with model stranger, which is none of"):
        lineage.vectors_of("stranger")


def test_a_run_that_was_trained_anew_is_refused(run_path: Path) -> None:
    publish(Lineage.read(run_path), "shoes")
    save_model(run_path / "unified", 9)
    with pytest.raises(BadInputError, match="was trained anew since it grew"):
        Lineage.read(run_path)


@pytest.mark.parametrize(
    ("file", "content", "message"),
    [
        ("growth.json", "{", "growth.json cannot be read"),
        ("growth.json", '{"growths": []}', "original_fingerprint: Field required"),
        ("unified/config.json", "{}", "is not that of a model"),
    ],
)
def test_a_damaged_record(run_path: Path, file: str, content: str, message: str) -> None:
    (run_path / file).write_text(content)
    with pytest.raises(BadInputError, match=message):
        deployed_model(run_path)


def test_finding_the_deployed_model_loads_neither_torch_nor_weights(run_path: Path) -> None:
    lineage = publish(Lineage.read(run_path), "shoes")
    for weights in run_path.rglob("model.safetensors"):
        weights.write_bytes(b"")
    code = (
        "import sys; from univert.training.grow import deployed_model; "
        f"print(deployed_model({str(run_path)!r})); assert 'torch' not in sys.modules"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip()
    assert Path(found) == lineage.models[lineage.deployed] == run_path / "grown/1-shoes/unified"
