"""Check a GLB with a reader that did not write it: python .ci/check_glb.py FILE PROMPT."""

import io
import sys

import pygltflib
from PIL import Image

path, prompt = sys.argv[1:]
gltf = pygltflib.GLTF2().load(path)
assert gltf is not None and gltf.asset.version == "2.0"
(mesh,) = gltf.meshes
(primitive,) = mesh.primitives
attributes = primitive.attributes
assert None not in (attributes.POSITION, attributes.NORMAL, attributes.TEXCOORD_0), attributes
triangles = gltf.accessors[primitive.indices].count // 3
assert 0 < triangles <= 20_000, triangles
positions = gltf.accessors[attributes.POSITION]
height = positions.max[1] - positions.min[1]
assert 0.05 < height <= 1.001 and abs(positions.min[1]) < 1e-3, (positions.min, positions.max)
texture = gltf.materials[primitive.material].pbrMetallicRoughness.baseColorTexture
image = gltf.images[gltf.textures[texture.index].source]
view = gltf.bufferViews[image.bufferView]
picture = Image.open(io.BytesIO(gltf.binary_blob()[view.byteOffset : view.byteOffset + view.byteLength]))
assert min(picture.size) >= 1024, picture.size
assert gltf.scenes[gltf.scene].extras["dreamfusion"]["prompt"] == prompt
print(f"{path}: glTF 2.0, {triangles} triangles, texture {picture.size}, {height:.2f} m tall, {prompt!r}")
