"""Make the home sample: product pictures and photos of rooms from 3-D models.

    python tools/build_home.py render SOURCES WORK --blender PYTHON    draw what is not drawn yet, into WORK
    python tools/build_home.py pack SOURCES WORK [--out DIR]           write products.parquet and scenes.parquet
    python tools/build_home.py names SOURCES WORK [--out DIR]          write names.parquet
    python tools/build_home.py sheets SOURCES WORK --out DIR           contact sheets, for looking at

SOURCES is the folder of the `*.sh3f` archives of Debian's package sweethome3d-furniture 1.8
(`/usr/share/sweethome3d/furniture`). PYTHON is a Python 3.11 with `bpy==4.5.15` and `pillow` from PyPI, which needs
Debian's libxrender1 libxi6 libxkbcommon0 libsm6 libxfixes3 libxxf86vm1 libgl1 libegl1. Nothing in `src` needs either.

`render` can be stopped at any time and goes on where it was. What a scene shows follows from its number.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

from home.jobs import Workplace, run_jobs
from home.names import pack_names

SAMPLE = Path(__file__).parents[1] / "src" / "univert" / "data" / "sample"


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("render", "pack", "names", "sheets"))
    parser.add_argument("sources", type=Path)
    parser.add_argument("work", type=Path)
    parser.add_argument("--blender", type=Path, default=Path(sys.executable), help="Python that has bpy")
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--only", choices=("convert", "pictures", "scenes"))
    parser.add_argument("--out", type=Path, default=SAMPLE)
    given = parser.parse_args()
    place = Workplace(given.work, given.sources)
    if given.what == "render":
        place.prepare()
        for kind in ("convert", "pictures", "scenes") if given.only is None else (given.only,):
            run_jobs(place, kind, given.blender, given.processes)
    elif given.what == "names":
        pack_names(place.sources, place.products(), given.out)
    else:
        from home import pack

        (pack.pack if given.what == "pack" else pack.sheets)(place, given.out)


if __name__ == "__main__":
    main()
