"""Writes clips and what transformers' video processors make of them, for the tests of inference/video.

    python tools/parity/video.py --out DIR [--edge 40 --crop 32]

It needs ffmpeg with libx264 and clients/python/requirements-torch.txt. DIR gets an index.json, the clips, and for each clip the bytes
of the chosen frames after resize and crop, compressed. The frames come from PyAV, as transformers reads them.
"""

import argparse
import gzip
import importlib.metadata
import io
import json
import pathlib
import shlex
import subprocess

import av
import numpy as np
import torch
from PIL import Image
from transformers import TimesformerVideoProcessor, VideoMAEVideoProcessor, VivitVideoProcessor

H264 = "-c:v libx264 -pix_fmt yuv420p"
TEST = "-f lavfi -i testsrc2=s=160x120:r=25:d=1"
CLIPS = {
    "moov-last.mp4": f"{TEST} {H264}",
    "faststart.mp4": f"-f lavfi -i mandelbrot=s=96x160:r=24 -t 1 {H264} -movflags +faststart",
    "fragmented.mp4": f"{TEST} {H264} -g 10 -movflags frag_keyframe+empty_moov",
    "sound.mp4": f"{TEST} -f lavfi -i sine=d=1 {H264} -c:a aac -shortest",
    "square.mp4": f"-f lavfi -i testsrc=s=64x64:r=25:d=1 {H264} -bf 0",
    "smaller.mp4": f"-f lavfi -i testsrc2=s=32x24:r=25:d=1 {H264}",
    "odd-444.mp4": "-f lavfi -i testsrc2=s=161x121:r=25:d=1 -c:v libx264 -pix_fmt yuv444p",
    "odd-420.mp4": f"-f lavfi -i testsrc2=s=164x124:r=25:d=1 -vf crop=162:122 {H264}",
    "full-range.mp4": f"{TEST} -vf scale=out_range=full -c:v libx264 -pix_fmt yuvj420p",
    "bt709.mp4": f"{TEST} {H264} -colorspace bt709 -color_primaries bt709 -color_trc bt709",
    "interlaced.mp4": f"-f lavfi -i testsrc2=s=160x120:r=50:d=1 -vf interlace {H264} -flags +ilme+ildct",
    "ten-bit.mp4": f"{TEST} -c:v libx264 -pix_fmt yuv420p10le",
    "hevc.mp4": f"{TEST} -c:v libx265 -x265-params log-level=none -pix_fmt yuv420p",
    "mpeg4.mp4": f"{TEST} -c:v mpeg4 -bf 2",
    "av1.mp4": "-f lavfi -i testsrc2=s=160x120:r=10:d=1 -c:v libaom-av1 -cpu-used 8 -pix_fmt yuv420p",
    "variable-rate.mp4": f"{TEST} -vf select='not(mod(n\\,3))+not(mod(n\\,7))' -fps_mode vfr {H264}",
    "few.mp4": f"{TEST} -frames:v 5 {H264}",
    "one.mp4": f"{TEST} -frames:v 1 {H264}",
    "noise.mp4": f"-f lavfi -i nullsrc=s=160x120:r=25:d=0.8 -vf geq=random(1)*255:128:128 {H264} -crf 40",
    "life.mkv": f"-f lavfi -i life=s=120x160:mold=10:r=25:ratio=0.3 -t 1 {H264}",
    "quicktime.mov": f"{TEST} -c:v libx264 -pix_fmt yuv422p",
    "mjpeg.mov": f"{TEST} -c:v mjpeg -pix_fmt yuvj420p",
    "vp8.webm": f"{TEST} -c:v libvpx -b:v 200k -auto-alt-ref 1 -lag-in-frames 16",
    "vp9.webm": f"{TEST} -c:v libvpx-vp9 -b:v 200k -deadline realtime -cpu-used 8",
    "mpeg4.avi": f"{TEST} -c:v mpeg4 -bf 2",
    "h264.avi": f"{TEST} {H264}",
    "palette.gif": "-f lavfi -i testsrc2=s=96x72:r=10:d=2",
}
# Made from other clips: a rotation that is only said, and a start in the middle of a group of pictures (an edit list).
COPIES = {
    "rotated.mp4": ("-i moov-last.mp4 -c copy -metadata:s:v rotate=90", "-display_rotation 90 -i moov-last.mp4 -c copy"),
    "edit-list.mp4": ("-ss 0.3 -i moov-last.mp4 -c copy",),
}
IMAGES = {
    "420": (61, 43, {"subsampling": 2}),
    "422": (61, 43, {"subsampling": 1}),
    "444": (61, 43, {"subsampling": 0}),
    "420-progressive": (64, 48, {"subsampling": 2, "progressive": True}),
    "420-narrow": (3, 40, {"subsampling": 2}),
    "grey": (61, 43, {"grey": True}),
}


def ffmpeg(arguments: str, path: pathlib.Path) -> bool:
    command = ["ffmpeg", "-nostdin", "-v", "error", "-y", *shlex.split(arguments), path.name]
    return subprocess.run(command, cwd=path.parent, check=False, capture_output=True).returncode == 0


def decode(path: pathlib.Path) -> np.ndarray:
    with av.open(str(path)) as container:
        return np.stack([frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)])


def choose(sampling: str, n: int, k: int) -> np.ndarray:
    if sampling == "hf":
        return np.arange(k) * n // k
    return np.linspace(0, n - 1, k).astype(int)


def processor(kind: type, edge: int, crop: int, **options):
    return kind(size={"shortest_edge": edge}, crop_size={"height": crop, "width": crop}, **options)


def save(path: pathlib.Path, array: np.ndarray) -> None:
    with path.open("wb") as raw, gzip.GzipFile(fileobj=raw, mode="wb", mtime=0, filename="") as f:
        f.write(np.ascontiguousarray(array).tobytes())


def write_clips(out: pathlib.Path, edge: int, crop: int, frames: int) -> list[dict]:
    rows = []
    for name in [*CLIPS, *COPIES]:
        ways = COPIES.get(name) or (CLIPS[name],)
        if not any(ffmpeg(way, out / name) for way in ways):
            raise SystemExit(f"ffmpeg could not make {name}")
        pixels = decode(out / name)
        for sampling in ("linspace", "hf"):
            for resample in (2, 3) if name == "moov-last.mp4" else (2,):
                kept = processor(VideoMAEVideoProcessor, edge, crop, resample=resample, do_rescale=False, do_normalize=False)
                chosen = torch.from_numpy(pixels[choose(sampling, len(pixels), frames)]).permute(0, 3, 1, 2)
                made = kept(chosen, return_tensors="pt")["pixel_values"][0].to(torch.uint8).numpy()
                reference = f"{name}.{sampling}-{resample}.gz"
                save(out / reference, made)
                rows.append({"clip": name, "sampling": sampling, "resample": resample, "frames": len(pixels), "reference": reference})
    return rows


def write_tables(out: pathlib.Path) -> list[dict]:
    """Every value that a pixel can have, through rescaling and normalisation: one frame of 16 x 16."""
    rows = []
    imagenet = {"image_mean": [0.485, 0.456, 0.406], "image_std": [0.229, 0.224, 0.225]}
    for name, kind, options in [
        ("videomae", VideoMAEVideoProcessor, {}),
        ("videomae-imagenet", VideoMAEVideoProcessor, imagenet),
        ("timesformer", TimesformerVideoProcessor, {"image_mean": [0.45] * 3, "image_std": [0.225] * 3}),
        ("vivit", VivitVideoProcessor, {}),
        ("rescale-only", VideoMAEVideoProcessor, {"do_normalize": False}),
    ]:
        p = processor(kind, 16, 16, **options)
        values = torch.arange(256, dtype=torch.uint8).reshape(1, 1, 16, 16).expand(1, 3, 16, 16)
        made = p(values, return_tensors="pt")["pixel_values"][0].numpy()
        save(out / f"table-{name}.gz", made.astype("<f4"))
        rows.append({"processor": json.loads(p.to_json_string()), "reference": f"table-{name}.gz"})
    return rows


def write_images(out: pathlib.Path) -> list[dict]:
    rows = []
    random = np.random.default_rng(1)
    for name, (width, height, options) in IMAGES.items():
        x, y = np.meshgrid(np.arange(width), np.arange(height))
        smooth = np.stack([x * 255 / width, y * 255 / height, (x + y) * 9 % 256], axis=-1)
        image = Image.fromarray((smooth * 0.7 + random.integers(0, 76, smooth.shape)).clip(0, 255).astype(np.uint8))
        options = dict(options)
        if options.pop("grey", False):
            image = image.convert("L")
        image.save(out / f"{name}.jpg", quality=88, **options)
        rows.append(image_row(out, f"{name}.jpg"))
    image = Image.fromarray(random.integers(0, 256, (43, 61, 4), dtype=np.uint8), "RGBA")
    for name, mode in (("rgba", "RGBA"), ("rgb", "RGB"), ("palette", "P"), ("grey", "L"), ("grey-alpha", "LA")):
        image.convert("RGB").convert(mode).save(out / f"{name}.png") if mode == "P" else image.convert(mode).save(out / f"{name}.png")
        rows.append(image_row(out, f"{name}.png"))
    return rows


def image_row(out: pathlib.Path, name: str) -> dict:
    with Image.open(io.BytesIO((out / name).read_bytes())) as image:
        pixels = np.asarray(image.convert("RGB"))
    save(out / f"{name}.gz", pixels)
    return {"image": name, "reference": f"{name}.gz", "width": pixels.shape[1], "height": pixels.shape[0]}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=pathlib.Path, required=True)
    parser.add_argument("--edge", type=int, default=40, help="the frames' shorter side after the resize")
    parser.add_argument("--crop", type=int, default=32)
    parser.add_argument("--frames", type=int, default=16)
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    torch.set_num_threads(1)
    index = {
        "made_with": {name: importlib.metadata.version(name) for name in ("torch", "torchvision", "transformers", "av", "pillow", "numpy")},
        "edge": options.edge,
        "crop": options.crop,
        "frames": options.frames,
        "clips": write_clips(options.out, options.edge, options.crop, options.frames),
        "tables": write_tables(options.out),
        "images": write_images(options.out),
    }
    (options.out / "index.json").write_text(json.dumps(index, indent=1) + "\n")


if __name__ == "__main__":
    main()
