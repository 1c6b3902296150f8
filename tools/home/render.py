"""Blender's part: product pictures and photos of scenes."""

from __future__ import annotations

import math
import random
import tempfile
from pathlib import Path
from typing import Any

import bpy
import numpy as np

from home import photo, surfaces
from home.blender import empty_scene, load
from home.jobs import VIEWS
from home.models import Product
from home.placing import Placed, Scene
from home.visibility import Camera, box_of, counts, share_seen

SHOP_SIDE_PX = 240
SHOP_SAMPLES, SCENE_SAMPLES = 3, 4
FOCAL_MM = 36.0
"""Sensor width, so that a focal length of 1 is one sensor width."""


def render_settings(scene: Any, size_px: tuple[int, int], samples: int, bounces: int) -> None:
    """Cycles on the CPU, with its denoiser; the light and the object numbers go to files that `render` reads."""
    scene.render.engine = "CYCLES"
    scene.render.resolution_x, scene.render.resolution_y = size_px
    scene.render.resolution_percentage = 100
    scene.render.threads_mode, scene.render.threads = "FIXED", 1
    cycles = scene.cycles
    cycles.device = "CPU"
    cycles.samples = samples
    cycles.use_adaptive_sampling = False
    cycles.use_denoising = True
    cycles.denoiser = "OPENIMAGEDENOISE"
    cycles.denoising_prefilter = cycles.denoising_quality = "FAST"
    cycles.use_light_tree = False
    cycles.max_bounces, cycles.diffuse_bounces = bounces, min(bounces, 3)
    cycles.glossy_bounces, cycles.transmission_bounces, cycles.transparent_max_bounces = 2, 3, 12
    cycles.caustics_reflective = cycles.caustics_refractive = False
    cycles.sample_clamp_indirect = 4.0
    scene.view_layers[0].use_pass_object_index = True


def render(scene: Any) -> tuple[np.ndarray, np.ndarray]:
    """The light [H, W, 3] and the number of the object seen [H, W]; rows from the top."""
    width, height = scene.render.resolution_x, scene.render.resolution_y
    with tempfile.TemporaryDirectory() as folder:
        scene.use_nodes = True
        tree = scene.node_tree
        tree.nodes.clear()
        layers = tree.nodes.new("CompositorNodeRLayers")
        output = tree.nodes.new("CompositorNodeOutputFile")
        output.base_path = folder
        output.format.file_format, output.format.color_depth = "OPEN_EXR", "32"
        output.file_slots.clear()
        for slot, name in (("light", "Image"), ("number", "IndexOB")):
            output.file_slots.new(slot)
            tree.links.new(layers.outputs[name], output.inputs[slot])
        bpy.ops.render.render()
        light = read_exr(Path(folder, "light0001.exr"), width, height)
        number = read_exr(Path(folder, "number0001.exr"), width, height)
    return light[..., :3], np.rint(number[..., 0]).astype(int)


def read_exr(path: Path, width: int, height: int) -> np.ndarray:
    """Pixels [H, W, 4] of a file, rows from the top."""
    image = bpy.data.images.load(str(path))
    image.colorspace_settings.name = "Non-Color"
    pixels = np.empty(width * height * 4, np.float32)
    image.pixels.foreach_get(pixels)
    bpy.data.images.remove(image)
    return pixels.reshape(height, width, 4)[::-1].astype(np.float64)


def add_camera(scene: Any, camera: Camera) -> None:
    """Look through `camera`."""
    data = bpy.data.cameras.new("camera")
    data.sensor_width = FOCAL_MM
    data.sensor_fit = "HORIZONTAL" if camera.size_px[0] >= camera.size_px[1] else "VERTICAL"
    data.sensor_height = FOCAL_MM
    data.lens = camera.focal * FOCAL_MM
    data.clip_start = 0.02
    thing = bpy.data.objects.new("camera", data)
    thing.location = camera.position
    thing.rotation_euler = (math.pi / 2 + camera.pitch, 0, camera.yaw)
    scene.collection.objects.link(thing)
    scene.camera = thing


def add_area_light(
    scene: Any,
    at: tuple[float, float, float],
    target: tuple[float, float, float],
    size: float,
    watts: float,
    colour: tuple[float, float, float] = (1, 1, 1),
) -> None:
    """A square lamp at a place that shines on another."""
    data = bpy.data.lights.new("area", "AREA")
    data.size, data.energy, data.color = size, watts, colour
    thing = bpy.data.objects.new("area", data)
    thing.location = at
    direction = np.subtract(target, at)
    flat = math.hypot(direction[0], direction[1])
    thing.rotation_euler = (math.atan2(flat, -direction[2]), 0, math.atan2(direction[1], direction[0]) - math.pi / 2)
    scene.collection.objects.link(thing)


def set_world(scene: Any, colour: tuple[float, float, float], strength: float) -> Any:
    """Light from everywhere; returns its node tree."""
    world = bpy.data.worlds.new("world")
    world.use_nodes = True
    background = world.node_tree.nodes["Background"]
    background.inputs["Color"].default_value = (*colour, 1)
    background.inputs["Strength"].default_value = strength
    world.cycles.sampling_method, world.cycles.sample_map_resolution = "MANUAL", 64
    scene.world = world
    return world.node_tree


def product_picture(product: Product, view: int, library: Path) -> bytes:
    """One view of a product on a plain background, as JPEG."""
    scene = empty_scene()
    render_settings(scene, (SHOP_SIDE_PX, SHOP_SIDE_PX), SHOP_SAMPLES, 2)
    thing = load(library, product.model.key, product.finish, scene)
    size = product.model.size_m
    largest = max(size)
    thing.scale = (1 / largest,) * 3
    _, depth, height = (side / largest for side in size)
    turn, rise = VIEWS[view]
    if height < 0.15:
        rise += 0.65
    if depth < 0.25 and height > 0.5:
        turn *= 0.7
    look = np.array([math.sin(turn) * math.cos(rise), -math.cos(turn) * math.cos(rise), math.sin(rise)])
    middle = np.array([0, 0, height / 2])
    points = np.load(library / f"{product.model.key}.npz")["points"] / largest - middle
    side = np.array([math.cos(turn), math.sin(turn), 0])
    up = np.cross(side, -look)
    across, along = points @ side, points @ up
    centre = middle + side * (across.max() + across.min()) / 2 + up * (along.max() + along.min()) / 2
    reach = max(np.ptp(across), np.ptp(along)) / 2
    nearest = float((points @ look).max())
    distance = nearest + reach * 2.9
    place = centre + look * distance
    fill = 1.14 + 0.1 * (nearest > 0)
    focal = (distance - nearest * 0.6) / (2 * reach * fill)
    add_camera(scene, Camera(tuple(place), turn, -rise, focal, (SHOP_SIDE_PX, SHOP_SIDE_PX)))
    surfaces.backdrop(scene, turn)
    set_world(scene, (1, 1, 1), 0.66)
    add_area_light(scene, (-1.6, -2.0, 2.6), tuple(middle), 2.0, 52)
    add_area_light(scene, (2.2, -1.4, 1.6), tuple(middle), 2.0, 18)
    light, _ = render(scene)
    return photo.shop_picture(light)


def scene_photo(scene: Scene, library: Path) -> tuple[bytes, dict[str, Any]]:
    """The photo of a scene as JPEG, and what it shows: items with boxes, and boxes to ignore."""
    stage = empty_scene()
    render_settings(stage, scene.camera.size_px, SCENE_SAMPLES, 3)
    for number, item in enumerate(scene.placed, start=1):
        thing = load(library, item.product.model.key, item.product.finish, stage)
        thing.location, thing.rotation_euler = item.at, (0, 0, item.turn)
        thing.pass_index = number
    rng = random.Random(f"stage/{scene.seed}")  # noqa: S311
    (surfaces.open_air if scene.kind == "outdoor" else surfaces.indoors)(stage, scene, rng)
    (outdoor_light if scene.kind == "outdoor" else indoor_light)(stage, scene, rng)
    add_camera(stage, scene.camera)
    light, numbers = render(stage)
    return photo.phone_photo(light, scene.seed), described(scene, numbers, library)


def described(scene: Scene, number: np.ndarray, library: Path) -> dict[str, Any]:
    """What the object numbers [H, W] of a photo say about its items."""
    items, ignored = [], []
    for index, item in enumerate(scene.placed, start=1):
        seen = number == index
        box = box_of(seen)
        if box is None:
            continue
        share = share_seen(scene.camera.project(item.points(lambda key: surface_points(library, key))), seen)
        if counts(box, share):
            items.append(item_entry(item, box, share))
        else:
            ignored.append(box)
    return {"kind": scene.kind, "split": scene.split, "items": items, "ignored": ignored}


def item_entry(item: Placed, box: tuple[int, int, int, int], share: float) -> dict[str, Any]:
    """An item as it is written down."""
    product = item.product
    return {"box": box, "product": product.key, "vertical": product.model.vertical, "share": round(share, 3)}


def surface_points(library: Path, key: str) -> np.ndarray:
    """The points on a model's surface, [N, 3] in m."""
    points: np.ndarray = np.load(library / f"{key}.npz")["points"].astype(np.float64)
    return points


def warmth(kelvin: float) -> tuple[float, float, float]:
    """Linear colour of light of a temperature, about as bright as white."""
    warm = (kelvin - 6500) / 4000
    green = 1 + 0.22 * min(warm, 0) - 0.1 * max(warm, 0)
    return 1 - 0.35 * max(warm, 0), green, 1 + 0.75 * min(warm, 0)


def indoor_light(stage: Any, scene: Scene, rng: random.Random) -> None:
    """A ceiling lamp, daylight from one side, and light that comes from everywhere."""
    day = rng.random() < 0.6
    sky = warmth(rng.uniform(5500, 9000))
    set_world(stage, sky, rng.uniform(0.25, 0.9) if day else rng.uniform(0.05, 0.25))
    middle = (0.0, scene.back * 0.6, 0.6)
    if day:
        side = rng.choice((-1, 1))
        x = (scene.left if side < 0 else scene.right) * 0.9
        at = (x, rng.uniform(-0.5, 0.5) * scene.back, rng.uniform(1.3, 2.2))
        add_area_light(stage, at, middle, rng.uniform(0.6, 1.6), rng.uniform(60, 260), sky)
    if not day or rng.random() < 0.5:
        at = (rng.uniform(-1, 1), rng.uniform(0.3, 0.9) * scene.back, 2.42)
        size, watts, tint = rng.uniform(0.15, 1.2), rng.uniform(30, 120), warmth(rng.uniform(2500, 5000))
        add_area_light(stage, at, (at[0] + 0.01, at[1], 0), size, watts, tint)


def outdoor_light(stage: Any, scene: Scene, rng: random.Random) -> None:
    """Sky and, on a clear day, sun."""
    tree = set_world(stage, (0.55, 0.7, 1.0), 1.0)
    clear = rng.random() < 0.65
    surfaces.sky(tree, rng, clear)
    if clear:
        data = bpy.data.lights.new("sun", "SUN")
        data.energy, data.angle = rng.uniform(2.0, 5.0), rng.uniform(0.01, 0.08)
        data.color = warmth(rng.uniform(3800, 6200))
        sun = bpy.data.objects.new("sun", data)
        sun.rotation_euler = (rng.uniform(0.3, 1.2), 0, rng.uniform(-math.pi, math.pi))
        stage.collection.objects.link(sun)
