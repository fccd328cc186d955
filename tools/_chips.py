"""The chips of tools/compile_report.py: their published peaks, and their devices without the hardware."""

import dataclasses
import importlib.util
import os
import sys
from pathlib import Path

import jax
from jax._src.cudnn import fused_attention_stablehlo as cudnn
from jax.experimental import topologies

from omni_jax.errors import OmniError

# The compilers may lie in a folder of their own inside the virtual environment; see requirements-compile.txt.
COMPILERS = Path(sys.prefix) / "compilers"
DESCRIPTIONS = Path(__file__).resolve().parent.parent / "configs" / "targets"
INSTALL = "python -m pip install --no-deps --target .venv/compilers -r requirements-compile.txt"


@dataclasses.dataclass(frozen=True)
class Chip:
    """Published peaks of one chip: bfloat16 FLOP/s, bytes/s of memory and of links to other chips (all of them, one
    way), bytes of memory; and, assumed here, the seconds that starting a kernel and a collective costs."""

    name: str
    flops: float
    memory_bandwidth: float
    link_bandwidth: float
    memory: int
    kernel_seconds: float
    collective_seconds: float


GIB = 1 << 30
# TPU peaks: Google Cloud's pages "TPU v5e", "TPU v6e" and "TPU v5p" (system architecture tables; inter-chip links in
# Gbit/s: 1600, 3584, 4800). H100 SXM: NVIDIA's H100 data sheet, dense bfloat16, NVLink 900 GB/s both ways.
# The two latencies are assumptions: a TPU runs a compiled program by itself, a GPU starts every kernel, from a graph.
CHIPS = {
    "v5e": Chip("TPU v5e", 197e12, 819e9, 200e9, 16 * GIB, 0.3e-6, 3e-6),
    "v6e": Chip("TPU v6e", 918e12, 1640e9, 448e9, 32 * GIB, 0.3e-6, 3e-6),
    "v5p": Chip("TPU v5p", 459e12, 2765e9, 600e9, 95 * GIB, 0.3e-6, 3e-6),
    "h100": Chip("H100 SXM", 989e12, 3350e9, 450e9, 80 * GIB, 2e-6, 10e-6),
}
CUDNN = 90800  # 9.8.0, as in configs/targets/h100.txtpb
TARGETS = ("v5e:2x2", "v5e:2x4", "v6e:2x4", "v5p:2x2x1", "h100")


def chip(target: str) -> Chip:
    """The chip of a target such as "v5e:2x4" or "h100". Raises OmniError."""
    name = target.partition(":")[0]
    if name not in CHIPS:
        raise OmniError(f"target {target!r}: is not known; choose one of {', '.join(TARGETS)} or another size of these")
    return CHIPS[name]


def prepare() -> None:
    """Lets JAX find the compilers and keeps it from looking for their hardware; call before JAX starts a backend."""
    if COMPILERS.is_dir() and str(COMPILERS) not in sys.path:
        sys.path.append(str(COMPILERS))
    quiet = {"TPU_SKIP_MDS_QUERY": "1", "ALLOW_MULTIPLE_LIBTPU_LOAD": "1",
             "TPU_MIN_LOG_LEVEL": "3", "TPU_STDERR_LOG_LEVEL": "3",
             "TPU_WORKER_HOSTNAMES": "localhost", "TF_CPP_MIN_LOG_LEVEL": "3", "JAX_SKIP_CUDA_CONSTRAINTS_CHECK": "1"}
    for name, value in quiet.items():
        os.environ.setdefault(name, value)
    jax.config.update("jax_platforms", "cpu")
    # JAX asks the running GPU, which is not there, whether cuDNN's attention may be used: for an H100 it may.
    cudnn.check_cudnn_version = lambda: CUDNN
    cudnn.check_compute_capability = lambda capability: True
    cudnn.is_cuda_compute_capability_equal = lambda capability: capability == "9.0"


def missing(target: str) -> str:
    """The module without which a target cannot be compiled for, or ""."""
    module = "jax_plugins.xla_cuda12" if target.startswith("h100") else "libtpu"
    try:
        return "" if importlib.util.find_spec(module) else module
    except ModuleNotFoundError:
        return module


def devices(target: str) -> list[jax.Device]:
    """The devices of a target, good for compiling only. Raises OmniError."""
    chip(target)
    prepare()
    if module := missing(target):
        raise OmniError(f"target {target!r}: its compiler ({module}) is not installed; run: {INSTALL}")
    try:
        if target.startswith("h100"):
            description = (DESCRIPTIONS / "h100.txtpb").read_text(encoding="utf-8")
            count = target.partition(":")[2] or "1"
            found = topologies.get_topology_desc(platform="cuda", target_config=description, topology=f"1x1x{count}")
        else:
            found = topologies.get_topology_desc(target, "tpu")
    except Exception as error:  # XLA raises many kinds for a name it does not know
        raise OmniError(f"target {target!r}: the compiler does not take it ({str(error).splitlines()[0]}); "
                        f"choose one of {', '.join(TARGETS)}") from None
    return list(found.devices)
