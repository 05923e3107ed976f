"""Devices and hosts: one per-device step with a named batch axis, on all devices of all hosts.

`pmapped` is `jit` of `jax.shard_map`, which is also how JAX implements `jax.pmap` since 0.8. The
step averages gradients itself, once, after the time loop: with automatic sharding, XLA would put an
all-reduce inside the backward loop.
"""

import os
import re
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from rnnx.errors import Outage, UserError

AXIS = "batch"
ROWS = PartitionSpec(AXIS)  # first axis spread over the devices
BATCHES = PartitionSpec(None, AXIS)  # batches one after the other, each spread by its rows
EVERYWHERE = PartitionSpec()  # the same on every device
_CACHE_BYTES = 32 << 20
_SILENCE = 30  # seconds without a sign of life after which a process counts as lost


def initialize(
    coordinator: str | None = None, num_processes: int | None = None, process_id: int | None = None
) -> None:
    """Connects the processes of a run; call it before anything uses a device.

    Without a coordinator or a launcher of several processes, this process runs alone. For forced
    CPU devices it enlarges the thread pool: their collectives deadlock with fewer than two threads
    a device.

    Raises:
      UserError: when the three arguments contradict each other.
      Outage: when the other processes can't be reached.
    """
    forced = re.search(
        r"xla_force_host_platform_device_count=(\d+)", os.environ.get("XLA_FLAGS", "")
    )
    devices = int(forced[1] if forced else os.environ.get("JAX_NUM_CPU_DEVICES", 1))
    if devices > 1:
        os.environ.setdefault("NPROC", str(max(os.cpu_count() or 1, 2 * devices)))
    given = (coordinator, num_processes, process_id)
    if all(value is None for value in given):
        if any(launched(os.environ) for launched in LAUNCHERS.values()):
            _join()
        return
    if any(value is None for value in given):
        raise UserError("--coordinator, --num_processes and --process_id go together")
    if not 0 <= process_id < num_processes:
        raise UserError(f"--process_id={process_id} is not among {num_processes} processes from 0")
    if not re.fullmatch(r"\S+:\d+", coordinator):
        raise UserError(f"--coordinator={coordinator} is not HOST:PORT")
    _join(coordinator, num_processes, process_id)


def _join(*given: Any) -> None:
    try:
        jax.distributed.initialize(
            *given, heartbeat_timeout_seconds=_SILENCE, shutdown_timeout_seconds=_SILENCE
        )
    except (RuntimeError, ValueError) as error:
        reason = str(error).strip().splitlines()[0]
        raise Outage(f"the processes of this run could not connect ({reason})") from error


def _step_of_slurm(env: Mapping[str, str]) -> bool:
    # A batch script's own shell has the task variables too, but is a single process.
    return int(env.get("SLURM_STEP_NUM_TASKS", 1)) > 1 and "SLURM_PROCID" in env


# Variables of launchers that start several processes of one run; JAX then finds the addresses.
LAUNCHERS: dict[str, Callable[[Mapping[str, str]], bool]] = {
    "SLURM_STEP_NUM_TASKS": _step_of_slurm,
    "OMPI_COMM_WORLD_SIZE": lambda env: int(env.get("OMPI_COMM_WORLD_SIZE", 1)) > 1,
    "TPU_WORKER_HOSTNAMES": lambda env: "," in env.get("TPU_WORKER_HOSTNAMES", ""),
}


def batch_mesh(batch_size: int, devices: list[Any] | None = None) -> Mesh:
    """A mesh of all devices in one axis; each holds an equal share of the batch.

    Raises:
      UserError: when the batch is not divisible by the number of devices.
    """
    devices = jax.devices() if devices is None else devices
    if batch_size % len(devices):
        raise UserError(
            f"batch_size={batch_size} is not divisible by {len(devices)} devices: choose a "
            f"multiple of {len(devices)}, or show fewer devices (CUDA_VISIBLE_DEVICES=0)"
        )
    return Mesh(np.asarray(devices), (AXIS,))


def pmapped(
    step: Callable,
    mesh: Mesh,
    in_specs: Any,
    out_specs: Any,
    donate: tuple[int, ...] = (),
    compiler_options: dict[str, str] | None = None,
) -> Callable:
    """Compiles a per-device step for every device of the mesh, as `jax.pmap` does.

    Args:
      step: gets its own rows of the arguments marked ROWS; the axis is named AXIS.
      in_specs, out_specs: ROWS, BATCHES or EVERYWHERE, or trees of them, for arguments and results.
      donate: positions of the arguments whose memory may be reused for results.
      compiler_options: XLA's options, by name.
    """
    # With check_vma=True JAX would sum the gradients itself, inside the time loop.
    sharded = jax.shard_map(
        step, mesh=mesh, in_specs=in_specs, out_specs=out_specs, check_vma=False
    )
    return jax.jit(sharded, donate_argnums=donate, compiler_options=compiler_options)


def compiler_options(streamed_bytes: int, tied: bool) -> dict[str, str] | None:
    """XLA options for an update that reads so many bytes of weights at every time step.

    JAX 0.10 uses YNNPACK for matrix products on CPUs. With a cache of 32 MiB, whole updates are a
    tenth faster with it than with Eigen for weights of 4 to 16 MB, and a tenth slower for 55 MB;
    where recurrent products are packed (`native`), they differ by 3 % at most. `heads.tied_softmax`
    is a sixth faster with Eigen. Eigen is therefore used for weights larger than the cache, and for
    tied ones.
    None stands for the default options.
    """
    if jax.default_backend() != "cpu" or not (tied or streamed_bytes > _CACHE_BYTES):
        return None
    options = {"xla_cpu_experimental_ynn_fusion_type": "LIBRARY_FUSION_TYPE_REDUCE"}
    try:
        jax.jit(jnp.square, compiler_options=options)(1.0)
    except Exception:  # the option is experimental: a later JAX may not know it
        return None
    return options


def first_row(rows_here: int) -> Array:
    """The index in the global batch of this device's first row, inside a step."""
    return jax.lax.axis_index(AXIS) * rows_here


def shard(tree: Any, mesh: Mesh, spec: PartitionSpec) -> Any:
    """Puts host arrays, identical in every process, on the mesh's devices."""
    sharding = NamedSharding(mesh, spec)
    if single():
        return jax.device_put(tree, sharding)
    return jax.tree.map(
        lambda a: jax.make_array_from_callback(a.shape, sharding, lambda i, a=a: np.asarray(a)[i]),
        tree,
    )


def local_copy(tree: Any) -> Any:
    """Replicated arrays as arrays on this process's first device only."""
    return jax.tree.map(lambda a: a.addressable_data(0), tree)


def rows_of_process(batch_size: int) -> slice:
    """The rows of the global batch that this process's devices hold."""
    share = batch_size // jax.process_count()
    return slice(jax.process_index() * share, (jax.process_index() + 1) * share)


def shard_rows(local: np.ndarray, mesh: Mesh, spec: PartitionSpec = ROWS) -> Array:
    """The global batch, or with spec BATCHES several, assembled from each process's own rows."""
    return jax.make_array_from_process_local_data(NamedSharding(mesh, spec), local)


def must_wait(mesh: Mesh) -> bool:
    """Whether to wait for each step: CPU collectives deadlock when many steps are queued."""
    return mesh.devices.size > 1 and mesh.devices.flat[0].platform == "cpu"


def single() -> bool:
    """Whether this is the only process of the run."""
    return jax.process_count() == 1


def is_main() -> bool:
    """Whether this process is the one that prints and writes."""
    return jax.process_index() == 0
