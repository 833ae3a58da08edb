"""Stage `method_gallery@DATASET`: pictures of the explanation methods side by side, in reports/figures/."""

from bla.experiments.faithfulness.figures import pictures, pictures_of_photos
from pipeline.artifacts.arrays import load_arrays
from pipeline.artifacts.features import load_grid
from pipeline.artifacts.figures import FIGURES, save_pictures
from pipeline.artifacts.images import captions, load_images
from pipeline.artifacts.maps import FAITHFULNESS, MAPS, cell_maps, load_sets, own_maps
from pipeline.artifacts.tables import load_table
from pipeline.maps.image_names import drawable, table_of_images
from pipeline.run.settings import load_settings


def main(dataset: str) -> None:
    """Draw every method's maps, their agreement with LIME and with effects of parts, curves, ranks and the random cascade.

    Also `photos/DATASET/FILE.png`, a picture of each of `gallery_images` explained images with all methods' overlays.
    """
    settings = load_settings()
    arrays, methods = load_arrays(MAPS / f"{dataset}.safetensors"), load_table(MAPS / f"{dataset}.csv")
    per_image, points, random, parts = (load_table(FAITHFULNESS / dataset / f"{name}.csv") for name in ("per_image", "curves", "randomisation", "parts"))  # fmt: skip
    images, run, grid = load_images(dataset, "test")[arrays["images"]], settings.faithfulness.run, load_grid(dataset)
    best = {name: [of_image[0] if of_image else [] for of_image in sets] for name, sets in load_sets(dataset).items()}
    maps, tables = (own_maps(arrays), cell_maps(arrays, grid)), (methods, per_image, points, random, parts)
    drawn = pictures(f"{dataset}, run {run}", *maps, best, grid, *tables, images, arrays["targets"], captions(dataset))
    save_pictures({FIGURES / f"{name}_{dataset}.png": draw for name, draw in drawn.items()})

    explained = table_of_images(dataset, arrays["images"], arrays["targets"])
    headings = [drawable(f"{row['file']}: class {row['class']}, explained: {row['explained_class']}", f"image {row['image']}") + f" (run {run}), blue little, red much" for row in explained.to_dict("records")]  # fmt: skip
    photos = pictures_of_photos(maps[0], best, grid, methods, images, headings, settings.gallery_images)
    folder = FIGURES / "photos" / dataset
    by_file = {folder / f"{explained['file'][row]}.png": draw for row, draw in photos.items()}
    save_pictures(by_file)
    for path in {path for path in folder.rglob("*") if path.is_file()} - set(by_file):
        path.unlink()
    if (settings.gallery_images or 0) > len(by_file):
        print(f"{dataset}: {len(by_file)} explained photographs are drawn; for more, raise faithfulness.images")
