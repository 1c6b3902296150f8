"""What Blender does with one model: read its OBJ file, bring it to true scale, colour it, keep it in a library file."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import bpy
import numpy as np

from home.models import PALETTE, Model

MOST_TRIANGLES = 40_000
LARGEST_TEXTURE_PX = 512
SURFACE_POINTS = 6000
FINISHED_MATERIAL_SHARE = 0.25
"""A finish recolours every opaque material that covers at least this share of the surface, and always the largest."""


def empty_scene() -> Any:
    """Forget everything; returns the scene."""
    bpy.ops.wm.read_factory_settings(use_empty=True)
    return bpy.context.scene


def convert(model: Model, obj: Path, out: Path) -> None:
    """Write `out/KEY.blend`, `out/KEY.npz` (points on its surface, in m) and `out/KEY.json` (its colours).

    The model stands on z = 0, its middle over the origin, its front towards -y.

    Raises:
        ValueError: the file holds no surface.
    """
    empty_scene()
    bpy.ops.wm.obj_import(filepath=str(obj))
    thing = joined([item for item in bpy.data.objects if item.type == "MESH" and item.data.polygons])
    place(thing, model)
    if model.vertical != "outdoor" or model.style != "exterior":
        shrink(thing)  # Trees keep every leaf: their trunks fall apart before their leaves do.
    shares = material_shares(thing)
    colours = {}
    for index, material in enumerate(thing.data.materials):
        if material is not None:
            colours[index] = prepare_material(material, shares[index])
    points = surface_points(thing)
    thing.name = model.key
    bpy.data.libraries.write(str(out / f"{model.key}.part.blend"), {thing}, compress=True)
    known = [index for index in colours if shares[index] > 0]
    weight = sum(shares[index] for index in known) or 1.0
    mean = [sum(shares[index] * colours[index][axis] for index in known) / weight for axis in range(3)]
    np.savez(out / f"{model.key}.npz", points=points.astype(np.float32))
    (out / f"{model.key}.part.blend").rename(out / f"{model.key}.blend")
    write_json(out / f"{model.key}.json", {"colour": mean, "triangles": len(thing.data.polygons)})


def write_json(path: Path, value: object) -> None:
    """Write `value` so that the file is there whole or not at all."""
    part = path.with_suffix(".part")
    part.write_text(json.dumps(value), encoding="utf-8")
    part.replace(path)


def joined(things: list[Any]) -> Any:
    """All meshes as one object without a transform."""
    if not things:
        raise ValueError("the file holds no surface")
    for thing in things:
        thing.data.transform(thing.matrix_world)
        thing.matrix_world.identity()
    with bpy.context.temp_override(
        active_object=things[0], object=things[0], selected_objects=things, selected_editable_objects=things
    ):
        bpy.ops.object.join()
    return things[0]


def place(thing: Any, model: Model) -> None:
    """Turn the mesh as the library says, scale it to its true size and stand it on the origin."""
    count = len(thing.data.vertices)
    flat = np.empty(count * 3, np.float32)
    thing.data.vertices.foreach_get("co", flat)
    x, y, z = flat.reshape(-1, 3).astype(np.float64).T
    upright = np.stack([x, z, -y])
    if model.rotation is not None:
        upright = np.array(model.rotation).reshape(3, 3) @ upright
    at = np.stack([upright[0], -upright[2], upright[1]], axis=1)
    low, high = at.min(axis=0), at.max(axis=0)
    scale = np.array(model.size_m) / np.maximum(high - low, 1e-9)
    scale[high - low < 1e-6] = 1.0
    at = (at - [*((low + high) / 2)[:2], low[2]]) * scale
    thing.data.vertices.foreach_set("co", at.astype(np.float32).ravel())
    if model.rotation is not None and np.linalg.det(np.array(model.rotation).reshape(3, 3)) < 0:
        thing.data.flip_normals()
    thing.data.update()


def shrink(thing: Any) -> None:
    """Reduce the mesh to about `MOST_TRIANGLES`."""
    thing.data.calc_loop_triangles()
    count = len(thing.data.loop_triangles)
    if count <= MOST_TRIANGLES:
        return
    modifier = thing.modifiers.new("shrink", "DECIMATE")
    modifier.ratio = MOST_TRIANGLES / count
    modifier.use_collapse_triangulate = True
    with bpy.context.temp_override(object=thing, active_object=thing):
        bpy.ops.object.modifier_apply(modifier=modifier.name)


def triangles(thing: Any) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Corners [T, 3, 3] in m, areas [T] and material numbers [T] of the triangles."""
    mesh = thing.data
    mesh.calc_loop_triangles()
    at = np.empty(len(mesh.vertices) * 3, np.float32)
    mesh.vertices.foreach_get("co", at)
    corners = np.empty(len(mesh.loop_triangles) * 3, np.int32)
    mesh.loop_triangles.foreach_get("vertices", corners)
    materials = np.empty(len(mesh.loop_triangles), np.int32)
    mesh.loop_triangles.foreach_get("material_index", materials)
    faces = at.reshape(-1, 3)[corners.reshape(-1, 3)].astype(np.float64)
    areas = np.linalg.norm(np.cross(faces[:, 1] - faces[:, 0], faces[:, 2] - faces[:, 0]), axis=1) / 2
    return faces, areas, materials


def material_shares(thing: Any) -> np.ndarray:
    """Share of the surface each material covers."""
    _, areas, materials = triangles(thing)
    slots = max(len(thing.data.materials), int(materials.max(initial=0)) + 1, 1)
    shares: np.ndarray = np.bincount(materials, weights=areas, minlength=slots) / max(areas.sum(), 1e-12)
    return shares


def surface_points(thing: Any) -> np.ndarray:
    """`SURFACE_POINTS` points spread evenly over the surface, [N, 3] in m."""
    faces, areas, _ = triangles(thing)
    rng = np.random.default_rng(0)
    chosen = faces[rng.choice(len(faces), SURFACE_POINTS, p=areas / areas.sum())]
    u, v = rng.random((2, SURFACE_POINTS, 1))
    flip = u + v > 1
    u, v = np.where(flip, 1 - u, u), np.where(flip, 1 - v, v)
    points: np.ndarray = chosen[:, 0] + u * (chosen[:, 1] - chosen[:, 0]) + v * (chosen[:, 2] - chosen[:, 0])
    return points


def surface_node(material: Any) -> Any:
    """The Principled BSDF of a material, or None."""
    nodes = material.node_tree.nodes if material.use_nodes else []
    return next((node for node in nodes if node.type == "BSDF_PRINCIPLED"), None)


def prepare_material(material: Any, share: float) -> tuple[float, float, float]:
    """Make a material that came from an MTL file fit for path tracing; returns its mean linear colour."""
    material["share"] = float(share)
    shader = surface_node(material)
    if shader is None:
        return (0.5, 0.5, 0.5)
    for node in list(material.node_tree.nodes):
        if node.type == "TEX_IMAGE" and (node.image is None or not node.image.size[0]):
            material.node_tree.nodes.remove(node)  # The library lacks the file; what is left is the plain colour.
    links = material.node_tree.links
    if not any(link.to_node.type == "NORMAL_MAP" and link.from_node.type == "TEX_IMAGE" for link in links):
        for link in list(shader.inputs["Normal"].links):
            links.remove(link)
    shader.inputs["Specular IOR Level"].default_value = min(shader.inputs["Specular IOR Level"].default_value, 0.5)
    shader.inputs["Roughness"].default_value = max(shader.inputs["Roughness"].default_value, 0.2)
    base = shader.inputs["Base Color"]
    if not base.is_linked or base.links[0].from_node.type != "TEX_IMAGE":
        colour = tuple(min(value, 0.8) for value in base.default_value[:3])
        base.default_value = (*colour, 1)
        return colour
    node = base.links[0].from_node
    image = node.image
    width, height = image.size
    if max(width, height) > LARGEST_TEXTURE_PX:
        ratio = LARGEST_TEXTURE_PX / max(width, height)
        image.scale(max(1, round(width * ratio)), max(1, round(height * ratio)))
    flat = np.empty(len(image.pixels), np.float32)
    image.pixels.foreach_get(flat)
    pixels = flat.reshape(-1, image.channels)
    if image.channels == 4 and pixels[:, 3].min() < 0.9 and not shader.inputs["Alpha"].is_linked:
        links.new(node.outputs["Alpha"], shader.inputs["Alpha"])
    if not image.packed_file:
        image.pack()
    solid = pixels[pixels[:, 3] > 0.5] if image.channels == 4 else pixels
    rgb = solid[:, :3].mean(axis=0) if len(solid) and image.channels >= 3 else np.full(3, 0.5)
    return tuple(float(value) ** 2.2 for value in rgb)


def load(library: Path, key: str, finish: str | None, scene: Any) -> Any:
    """The model `key` as an object in `scene`, in a finish of `PALETTE` or its own colours."""
    with bpy.data.libraries.load(str(library / f"{key}.blend"), link=False) as (_, found):
        found.objects = [key]
    thing = found.objects[0]
    scene.collection.objects.link(thing)
    if finish is not None:
        recolour(thing, PALETTE[finish])
    return thing


def recolour(thing: Any, colour: tuple[float, float, float]) -> None:
    """Give the materials that cover most of a thing another colour; textures keep their light and dark."""
    materials = [item for item in thing.data.materials if item is not None and surface_node(item) is not None]
    opaque = [item for item in materials if is_opaque(item)] or materials
    if not opaque:
        return
    largest = max(item["share"] for item in opaque)
    for material in opaque:
        if material["share"] < min(largest, FINISHED_MATERIAL_SHARE):
            continue
        base = surface_node(material).inputs["Base Color"]
        if not base.is_linked:
            base.default_value = (*colour, 1)
            continue
        nodes, links = material.node_tree.nodes, material.node_tree.links
        grey = nodes.new("ShaderNodeRGBToBW")
        ramp = nodes.new("ShaderNodeMapRange")
        ramp.inputs["From Max"].default_value = 0.6
        ramp.inputs["To Min"].default_value = 0.45
        ramp.inputs["To Max"].default_value = 1.4
        mix = nodes.new("ShaderNodeVectorMath")
        mix.operation = "MULTIPLY"
        mix.inputs[1].default_value = colour
        links.new(base.links[0].from_socket, grey.inputs["Color"])
        links.new(grey.outputs["Val"], ramp.inputs["Value"])
        links.new(ramp.outputs["Result"], mix.inputs[0])
        links.new(mix.outputs["Vector"], base)


def is_opaque(material: Any) -> bool:
    """Whether light does not pass a material."""
    alpha = surface_node(material).inputs["Alpha"]
    return not alpha.is_linked and alpha.default_value > 0.95
