"""Features of photographs in a pipeline of Ray Data, with dtwpt's callable.

For pipelines that end in something else than a feature store; for a store there is
``dtwpt extract --engine ray``. Needs dtwpt[ray,examples]; nothing is downloaded: the photographs
come with scikit-image.

    python examples/ray_extract.py --output features
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

import ray
from PIL import Image
from skimage import data

from dtwpt.extract import FeatureExtractor, Settings

PHOTOGRAPHS = ("astronaut", "brick", "camera", "chelsea", "coffee", "grass", "gravel", "rocket")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--address", default="local", help="a cluster of Ray; auto: the running one"
    )
    parser.add_argument("--actors", type=int, default=2)
    parser.add_argument("--output", type=Path, help="folder for the table, as Parquet files")
    arguments = parser.parse_args()

    # On a cluster, a folder that all machines see.
    with tempfile.TemporaryDirectory() as folder:
        paths = [str(Path(folder, f"{name}.png")) for name in PHOTOGRAPHS]
        for name, path in zip(PHOTOGRAPHS, paths, strict=True):
            Image.fromarray(getattr(data, name)()).save(path)
        paths.append(str(Path(folder, "missing.png")))

        if arguments.address == "local":
            ray.init(address="local", num_cpus=arguments.actors, include_dashboard=False)
        else:
            ray.init(address=arguments.address)
        table = (
            ray.data.from_items([{"path": path} for path in paths], override_num_blocks=3)
            .map_batches(
                FeatureExtractor,  # an instance in each actor
                fn_constructor_args=(Settings(depth=2),),
                batch_size=4,
                compute=ray.data.ActorPoolStrategy(size=arguments.actors),
            )
            .materialize()
        )
        # One pass, whose result is used twice.
        for row in sorted(table.iter_rows(), key=lambda row: str(row["path"])):
            said = (
                row["error"]
                or f"{row['features'].size} features, mean {row['features'].mean():.4f}"
            )
            print(f"{Path(row['path']).name}: {said}")
        if arguments.output is not None:
            table.write_parquet(str(arguments.output.resolve()))
        ray.shutdown()


if __name__ == "__main__":
    main()
