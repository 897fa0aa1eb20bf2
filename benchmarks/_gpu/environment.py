"""E: what the machine is, and what its device does at best: the ceilings for everything else."""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
import time
from collections.abc import Callable
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from benchmarks._gpu.run import Run
from benchmarks._gpu.world import World
from embedstore.encoders.runtimes.choose import has_cuda

PACKAGES = (
    "torch", "torchcodec", "nvidia-nvimgcodec-cu13", "open_clip_torch", "sentence-transformers", "tokenizers", "numpy",
    "pillow", "pyarrow", "xgboost", "faiss-cpu", "faiss-gpu-cuvs",
)  # fmt: skip
PRODUCT, LEAST_TFLOPS = 8192, 600
BYTES = 1 << 30


def environment(world: World, run: Run) -> None:
    run.report("machine", "cores", float(os.cpu_count() or 1))
    run.report("machine", "processor", _processor())
    run.report("machine", "python", platform.python_version())
    for package in PACKAGES:
        try:
            run.report("versions", package, version(package))
        except PackageNotFoundError:
            run.report("versions", package, "absent")
    if world.gpu:
        if shutil.which("nvidia-smi"):
            query = ["nvidia-smi", "--query-gpu=name,driver_version,memory.total", "--format=csv,noheader"]
            run.report("device", "nvidia-smi", subprocess.run(query, capture_output=True, text=True).stdout.strip())
        run.report("device", "/dev/nvidiactl", Path("/dev/nvidiactl").exists())
        run.check("device", "has_cuda()", has_cuda(), "=", True)
    _products(world, run)
    _copies(world, run)


def _processor() -> str:
    lines = Path("/proc/cpuinfo").read_text(errors="replace").splitlines()
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), platform.machine())


def per_second(world: World, work: Callable[[], object], amount: float, times: int = 10) -> float:
    """`amount` of each of a few calls, a second, all of them done."""
    work()
    world.wait()
    start = time.perf_counter()
    for _ in range(times):
        work()
    world.wait()
    return amount * times / (time.perf_counter() - start)


def _products(world: World, run: Run) -> None:
    import torch

    n = 64 if world.tiny else PRODUCT
    for dtype in (torch.bfloat16, torch.float16, torch.float32):
        a, b = (torch.randn(n, n, device=world.device).to(dtype) for _ in range(2))
        rate = per_second(world, lambda a=a, b=b: a @ b, 2 * n**3 / 1e12)  # type: ignore[misc]
        name = str(dtype).removeprefix("torch.")
        if dtype == torch.bfloat16 and world.aimed_at:
            run.check("product", name, rate, "≥", LEAST_TFLOPS, " TFLOP/s")
        else:
            run.report("product", name, rate, " TFLOP/s")


def _copies(world: World, run: Run) -> None:
    import torch

    size = 1 << 16 if world.tiny else BYTES
    there = torch.empty(size, dtype=torch.uint8, device=world.device)
    other = torch.empty_like(there)
    rate = per_second(world, lambda: other.copy_(there), 2 * size / 1e9)
    run.report("copies", "on the device, read and written", rate, " GB/s")
    pageable = torch.zeros(size // 4, dtype=torch.uint8)
    kinds = {"pageable": pageable, **({"pinned": pageable.pin_memory()} if world.gpu else {})}
    for name, host in kinds.items():
        part = there[: len(host)]
        rate = per_second(world, lambda host=host, part=part: part.copy_(host, non_blocking=True), len(host) / 1e9)  # type: ignore[misc]
        run.report("copies", name, rate, " GB/s")
