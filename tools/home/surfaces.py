"""Floors, walls, ground and sky: Blender materials that follow from a random generator."""

from __future__ import annotations

import colorsys
import math
import random
from typing import Any

import bpy

from home.placing import Scene

Colour = tuple[float, float, float]
CEILING_M = 2.55


Range = tuple[float, float]


def colour(rng: random.Random, hue: Range, saturation: Range, value: Range) -> Colour:
    """A linear colour from ranges of hue, saturation and value (as the eye sees it)."""
    seen = colorsys.hsv_to_rgb(rng.uniform(*hue) % 1, rng.uniform(*saturation), rng.uniform(*value))
    red, green, blue = (part**2.2 for part in seen)
    return red, green, blue


def plain(tint: Colour, roughness: float = 0.7) -> Any:
    """A material of one colour."""
    material = bpy.data.materials.new("plain")
    material.use_nodes = True
    shader = material.node_tree.nodes["Principled BSDF"]
    shader.inputs["Base Color"].default_value = (*tint, 1)
    shader.inputs["Roughness"].default_value = roughness
    return material


class Pattern:
    """A material whose colour is put together from texture nodes, in m of the object's own coordinates."""

    def __init__(self, roughness: float) -> None:
        self.material = plain((0.5, 0.5, 0.5), roughness)
        self.nodes, self.links = self.material.node_tree.nodes, self.material.node_tree.links
        self.at = self.nodes.new("ShaderNodeTexCoord").outputs["Object"]

    def scaled(self, scale: tuple[float, float, float]) -> Any:
        """The coordinates, stretched."""
        node = self.nodes.new("ShaderNodeMapping")
        node.inputs["Scale"].default_value = scale
        self.links.new(self.at, node.inputs["Vector"])
        return node.outputs["Vector"]

    def noise(self, scale: tuple[float, float, float], detail: float = 4) -> Any:
        """Noise with values about 0.5."""
        node = self.nodes.new("ShaderNodeTexNoise")
        node.inputs["Scale"].default_value, node.inputs["Detail"].default_value = 1.0, detail
        self.links.new(self.scaled(scale), node.inputs["Vector"])
        return node.outputs["Fac"]

    def ramp(self, value: Any, low: Colour, high: Colour, ends: tuple[float, float] = (0.3, 0.7)) -> Any:
        """A colour between two as a value goes between two ends."""
        node = self.nodes.new("ShaderNodeValToRGB")
        first, second = node.color_ramp.elements
        first.position, second.position = ends
        first.color, second.color = (*low, 1), (*high, 1)
        self.links.new(value, node.inputs["Fac"])
        return node.outputs["Color"]

    def bricks(
        self, width: float, height: float, gap: float, offset: float, colours: tuple[Any, Any], mortar: Colour
    ) -> Any:
        """Rows of rectangles, in m; a colour may be a node's."""
        node = self.nodes.new("ShaderNodeTexBrick")
        node.offset = offset
        node.inputs["Scale"].default_value = 1.0
        node.inputs["Brick Width"].default_value, node.inputs["Row Height"].default_value = width, height
        node.inputs["Mortar Size"].default_value = gap
        node.inputs["Mortar"].default_value = (*mortar, 1)
        for name, given in zip(("Color1", "Color2"), colours, strict=True):
            if isinstance(given, tuple):
                node.inputs[name].default_value = (*given, 1)
            else:
                self.links.new(given, node.inputs[name])
        self.links.new(self.at, node.inputs["Vector"])
        return node.outputs["Color"]

    def stripes(self, width: float) -> Any:
        """A value that alternates across the first axis."""
        node = self.nodes.new("ShaderNodeTexWave")
        node.inputs["Scale"].default_value = 0.314 / width
        self.links.new(self.at, node.inputs["Vector"])
        return node.outputs["Fac"]

    def done(self, result: Any) -> Any:
        """The material with this colour."""
        self.links.new(result, self.nodes["Principled BSDF"].inputs["Base Color"])
        return self.material


def darker(tint: Colour, factor: float) -> Colour:
    """A colour times a factor."""
    return tint[0] * factor, tint[1] * factor, tint[2] * factor


def wood(rng: random.Random, planks: bool) -> Any:
    """Boards, or one board, of a kind of wood."""
    tone = colour(rng, (0.05, 0.11), (0.2, 0.65), (0.3, 0.85))
    pattern = Pattern(rng.uniform(0.25, 0.6))
    grain = pattern.noise((1.2, 22.0, 22.0) if planks else (22.0, 1.2, 22.0), 6)
    light, dark = (
        pattern.ramp(grain, darker(tone, 0.6), tone),
        pattern.ramp(grain, darker(tone, 0.45), darker(tone, 0.8)),
    )
    if not planks:
        return pattern.done(light)
    length, width = rng.uniform(0.8, 1.6), rng.uniform(0.08, 0.2)
    return pattern.done(pattern.bricks(length, width, 0.003, 0.37, (light, dark), darker(tone, 0.2)))


def tiles(rng: random.Random) -> Any:
    """Square or oblong tiles with joints, sometimes of two colours."""
    first = colour(rng, (0, 1), (0.0, 0.35), (0.3, 0.95))
    second = first if rng.random() < 0.6 else colour(rng, (0, 1), (0.0, 0.35), (0.15, 0.95))
    pattern = Pattern(rng.uniform(0.2, 0.5))
    side = rng.choice((0.1, 0.15, 0.2, 0.3, 0.45))
    cloud = pattern.noise((6, 6, 6))
    ways = (pattern.ramp(cloud, darker(first, 0.85), first), pattern.ramp(cloud, darker(second, 0.85), second))
    grey = rng.uniform(0.1, 0.6)
    length, offset = side * rng.choice((1, 1, 2)), rng.choice((0.0, 0.5))
    return pattern.done(pattern.bricks(length, side, 0.006, offset, ways, (grey, grey, grey)))


def carpet(rng: random.Random) -> Any:
    """Short pile."""
    tone = colour(rng, (0, 1), (0.0, 0.5), (0.25, 0.8))
    pattern = Pattern(0.95)
    return pattern.done(pattern.ramp(pattern.noise((140, 140, 140), 2), darker(tone, 0.55), tone))


def paint(rng: random.Random) -> Any:
    """A painted wall, slightly uneven."""
    tone = colour(rng, (0, 1), (0.0, 0.4), (0.5, 0.95))
    pattern = Pattern(0.85)
    return pattern.done(pattern.ramp(pattern.noise((1.5, 1.5, 1.5)), darker(tone, 0.85), tone))


def wallpaper(rng: random.Random) -> Any:
    """Stripes of two near colours."""
    tone = colour(rng, (0, 1), (0.05, 0.45), (0.45, 0.95))
    pattern = Pattern(0.8)
    stripes, shade = pattern.stripes(rng.uniform(0.04, 0.25)), darker(tone, rng.uniform(0.5, 0.85))
    return pattern.done(pattern.ramp(stripes, shade, tone, (0.45, 0.55)))


def brick_wall(rng: random.Random) -> Any:
    """Bricks with mortar."""
    tone = colour(rng, (0.0, 0.08), (0.1, 0.6), (0.3, 0.85))
    pattern = Pattern(0.9)
    cloud = pattern.noise((15, 15, 15))
    ways = (pattern.ramp(cloud, darker(tone, 0.6), tone), pattern.ramp(cloud, darker(tone, 0.4), darker(tone, 0.8)))
    grey = rng.uniform(0.15, 0.6)
    return pattern.done(pattern.bricks(0.22, 0.075, 0.008, 0.5, ways, (grey, grey, grey)))


def earth(rng: random.Random) -> Any:
    """Grass, sand, gravel or asphalt."""
    hue, saturation, value = rng.choice(
        (((0.2, 0.3), (0.4, 0.7), (0.3, 0.6)), ((0.08, 0.13), (0.2, 0.5), (0.5, 0.8)), ((0, 1), (0, 0.08), (0.2, 0.6)))
    )
    tone = colour(rng, hue, saturation, value)
    pattern = Pattern(0.95)
    return pattern.done(
        pattern.ramp(pattern.noise((rng.uniform(2, 40),) * 3, 10), darker(tone, 0.45), tone, (0.35, 0.65))
    )


def plane(stage: Any, corners: list[tuple[float, float, float]], material: Any) -> Any:
    """A rectangle; its own coordinates start at its first corner and run along its first and last edge, in m."""
    from mathutils import Matrix, Vector

    first, second, _, last = (Vector(corner) for corner in corners)
    across, along = (second - first).normalized(), (last - first).normalized()
    width, height = (second - first).length, (last - first).length
    mesh = bpy.data.meshes.new("plane")
    mesh.from_pydata([(0, 0, 0), (width, 0, 0), (width, height, 0), (0, height, 0)], [], [(0, 1, 2, 3)])
    mesh.materials.append(material)
    thing = bpy.data.objects.new("plane", mesh)
    normal = across.cross(along)
    thing.matrix_world = Matrix.Translation(first) @ Matrix((across, along, normal)).transposed().to_4x4()
    stage.collection.objects.link(thing)
    return thing


def ground(stage: Any, reach: float, material: Any) -> Any:
    """A square floor around the origin."""
    return plane(stage, [(-reach, -reach, 0), (reach, -reach, 0), (reach, reach, 0), (-reach, reach, 0)], material)


def backdrop(stage: Any, turn: float) -> Any:
    """A white floor that bends up into a wall behind the origin, as seen from `turn` radians about the vertical."""
    angles = [step * math.pi / 24 for step in range(13)]
    arc = [(2.0 + 2.5 * math.sin(angle), 2.5 - 2.5 * math.cos(angle)) for angle in angles]
    profile = [(-30.0, 0.0), *arc, (4.5, 30.0)]
    corners = [(x, y, z) for y, z in profile for x in (-40.0, 40.0)]
    faces = [(2 * n, 2 * n + 1, 2 * n + 3, 2 * n + 2) for n in range(len(profile) - 1)]
    mesh = bpy.data.meshes.new("backdrop")
    mesh.from_pydata(corners, [], faces)
    mesh.materials.append(plain((0.88, 0.88, 0.88), 1.0))
    mesh.shade_smooth()
    thing = bpy.data.objects.new("backdrop", mesh)
    thing.rotation_euler = (0, 0, turn)
    stage.collection.objects.link(thing)
    return thing


def box(stage: Any, size: Colour, at: Colour, material: Any) -> Any:
    """A block that stands on `at`."""
    width, depth, height = size
    x, y = width / 2, depth / 2
    corners = [(a, b, c) for c in (0, height) for a, b in ((-x, -y), (x, -y), (x, y), (-x, y))]
    mesh = bpy.data.meshes.new("box")
    mesh.from_pydata(corners, [], [(0, 3, 2, 1), (4, 5, 6, 7), (0, 1, 5, 4), (1, 2, 6, 5), (2, 3, 7, 6), (3, 0, 4, 7)])
    mesh.materials.append(material)
    thing = bpy.data.objects.new("box", mesh)
    thing.location = at
    stage.collection.objects.link(thing)
    return thing


def indoors(stage: Any, scene: Scene, rng: random.Random) -> None:
    """Floor, walls, a ceiling that lets the light in, and the counter."""
    left, right, back, front = scene.left, scene.right, scene.back, -3.0
    floor = rng.choice((lambda r: wood(r, True), lambda r: wood(r, True), tiles, carpet))(rng)
    plane(stage, [(left, front, 0), (right, front, 0), (right, back, 0), (left, back, 0)], floor)
    wall = rng.choice((paint, paint, paint, wallpaper, brick_wall, tiles))(rng)
    other = wall if rng.random() < 0.6 else paint(rng)
    top = CEILING_M
    plane(stage, [(left, back, 0), (right, back, 0), (right, back, top), (left, back, top)], wall)
    sides = [
        plane(stage, [(left, front, 0), (left, back, 0), (left, back, top), (left, front, top)], other),
        plane(stage, [(right, back, 0), (right, front, 0), (right, front, top), (right, back, top)], other),
    ]
    corners = [(left, front, top), (left, back, top), (right, back, top), (right, front, top)]
    ceiling = plane(stage, corners, plain((0.8, 0.8, 0.78)))
    for thing in [ceiling, sides[rng.randrange(2)]]:
        thing.visible_shadow = thing.visible_diffuse = False
    strip = plain(darker((1, 1, 1), rng.choice((0.8, 0.05, 0.3))), 0.4)
    if rng.random() < 0.6:
        box(stage, (right - left, 0.015, rng.uniform(0.06, 0.12)), ((left + right) / 2, back - 0.008, 0), strip)
    if scene.counter is not None:
        width, depth, height, y = scene.counter
        material = rng.choice((lambda r: wood(r, False), lambda r: wood(r, False), carpet, paint, tiles))(rng)
        box(stage, (width, depth, 0.035), (0, y, height - 0.035), material)
        if rng.random() < 0.5:
            box(stage, (width * 0.94, depth * 0.85, height - 0.04), (0, y, 0), paint(rng))


def open_air(stage: Any, scene: Scene, rng: random.Random) -> None:
    """Ground, and often a house wall or a strip of another ground."""
    ground(stage, 120.0, earth(rng))
    if rng.random() < 0.5:
        near, far = rng.uniform(-2, 3), rng.uniform(4, 9)
        paving = rng.choice((tiles, brick_wall, earth, lambda r: wood(r, True)))(rng)
        plane(stage, [(-60, near, 0.004), (60, near, 0.004), (60, far, 0.004), (-60, far, 0.004)], paving)
    if rng.random() < 0.6:
        furthest = max([item.at[1] + max(item.product.model.size_m[:2]) / 2 for item in scene.placed], default=8.0)
        y, height = furthest + rng.uniform(0.3, 3.0), rng.choice((1.4, 1.8, 3.0, 6.0))
        wall = rng.choice((brick_wall, paint, lambda r: wood(r, True)))(rng)
        plane(stage, [(-60, y, 0), (60, y, 0), (60, y, height), (-60, y, height)], wall)


def sky(tree: Any, rng: random.Random, clear: bool) -> None:
    """Blue or grey sky with clouds, brighter at the horizon, in a world's node tree."""
    nodes, links = tree.nodes, tree.links
    at = nodes.new("ShaderNodeTexCoord").outputs["Generated"]
    stretch = nodes.new("ShaderNodeMapping")
    stretch.inputs["Scale"].default_value = (1.5, 1.5, 5.0)
    stretch.inputs["Location"].default_value = (rng.uniform(0, 9), rng.uniform(0, 9), 0)
    cloud = nodes.new("ShaderNodeTexNoise")
    cloud.inputs["Scale"].default_value, cloud.inputs["Detail"].default_value = 1.6, 7
    ramp = nodes.new("ShaderNodeValToRGB")
    if clear:
        blue = colour(rng, (0.55, 0.6), (0.35, 0.65), (0.6, 0.9))
    else:
        blue = colour(rng, (0.55, 0.62), (0.0, 0.12), (0.7, 0.85))
    ramp.color_ramp.elements[0].color = (*blue, 1)
    ramp.color_ramp.elements[1].color = (0.9, 0.9, 0.92, 1)
    ramp.color_ramp.elements[0].position, ramp.color_ramp.elements[1].position = rng.uniform(0.4, 0.55), 0.75
    links.new(at, stretch.inputs["Vector"])
    links.new(stretch.outputs["Vector"], cloud.inputs["Vector"])
    links.new(cloud.outputs["Fac"], ramp.inputs["Fac"])
    links.new(ramp.outputs["Color"], nodes["Background"].inputs["Color"])
    nodes["Background"].inputs["Strength"].default_value = rng.uniform(0.7, 1.2)
