"""Devices and hosts: one per-device step with a named batch axis, on all devices of all hosts.

`pmapped` is what `jax.pmap` has been made of since JAX 0.8, called by its own name: `jit` of
`jax.shard_map`. Gradients are averaged by the step itself, explicitly and once, behind the time
loop; left to automatic sharding, XLA puts an all-reduce into the backward loop.
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
_SILENCE = 30  # seconds after which a process that is not heard of is given up


def initialize(
    coordinator: str | None = None, num_processes: int | None = None, process_id: int | None = None
) -> None:
    """Joins the processes of a run; call before anything touches a device.

    Without a coordinator, and where no launcher tells of several processes, this is a single one.
    On forced CPU devices it makes sure that the thread pool is large enough for their collectives,
    which deadlock below two threads a device.

    Raises:
      UserError: when the three contradict each other.
      Outage: when the others do not come.
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
        raise Outage(f"the processes of this run do not come together ({reason})") from error


def _step_of_slurm(env: Mapping[str, str]) -> bool:
    # A batch script's own shell knows of tasks too, but is no step of several.
    return int(env.get("SLURM_STEP_NUM_TASKS", 1)) > 1 and "SLURM_PROCID" in env


# What tells that several processes of one run were started, whose addresses JAX then finds.
LAUNCHERS: dict[str, Callable[[Mapping[str, str]], bool]] = {
    "SLURM_STEP_NUM_TASKS": _step_of_slurm,
    "OMPI_COMM_WORLD_SIZE": lambda env: int(env.get("OMPI_COMM_WORLD_SIZE", 1)) > 1,
    "TPU_WORKER_HOSTNAMES": lambda env: "," in env.get("TPU_WORKER_HOSTNAMES", ""),
}


def batch_mesh(batch_size: int, devices: list[Any] | None = None) -> Mesh:
    """All devices in one axis, each to hold an equal share of the batch.

    Raises:
      UserError: when the batch does not divide by the number of devices.
    """
    devices = jax.devices() if devices is None else devices
    if batch_size % len(devices):
        raise UserError(
            f"batch_size={batch_size} does not divide by {len(devices)} devices: choose a "
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
    """Compiles a per-device step for every device of the mesh: `jax.pmap` by its modern name.

    Args:
      step: sees its own rows of arguments marked ROWS, and axis name AXIS.
      in_specs, out_specs: ROWS or EVERYWHERE, or trees of them, for arguments and results.
      donate: positions of arguments whose memory the results may take.
      compiler_options: XLA's, by name.
    """
    # check_vma=False: with it JAX would sum the gradients by itself, inside the time loop.
    sharded = jax.shard_map(
        step, mesh=mesh, in_specs=in_specs, out_specs=out_specs, check_vma=False
    )
    return jax.jit(sharded, donate_argnums=donate, compiler_options=compiler_options)


def compiler_options(streamed_bytes: int) -> dict[str, str] | None:
    """What to tell XLA of a step that reads so many bytes of weights again every time step.

    More than a CPU's caches hold: leave products to Eigen. JAX 0.10 gives them to YNNPACK, which
    is the faster by a tenth while weights stay in the cache, and the slower by a tenth when they
    come from memory (whole updates: 4 to 16 MB, and 55 MB, on a cache of 32 MiB).
    """
    if jax.default_backend() != "cpu" or streamed_bytes <= _CACHE_BYTES:
        return None
    options = {"xla_cpu_experimental_ynn_fusion_type": "LIBRARY_FUSION_TYPE_REDUCE"}
    try:
        jax.jit(jnp.square, compiler_options=options)(1.0)
    except Exception:  # the option is experimental: a later JAX may not know it
        return None
    return options


def first_row(rows_here: int) -> Array:
    """Inside a step: the place in the global batch of this device's first row."""
    return jax.lax.axis_index(AXIS) * rows_here


def shard(tree: Any, mesh: Mesh, spec: PartitionSpec) -> Any:
    """Puts host arrays, the same in every process, on the mesh's devices."""
    sharding = NamedSharding(mesh, spec)
    if single():
        return jax.device_put(tree, sharding)
    return jax.tree.map(
        lambda a: jax.make_array_from_callback(a.shape, sharding, lambda i, a=a: np.asarray(a)[i]),
        tree,
    )


def local_copy(tree: Any) -> Any:
    """Arrays that are the same on every device, on this process's first device alone."""
    return jax.tree.map(lambda a: a.addressable_data(0), tree)


def rows_of_process(batch_size: int) -> slice:
    """The rows of the global batch that this process's devices hold."""
    share = batch_size // jax.process_count()
    return slice(jax.process_index() * share, (jax.process_index() + 1) * share)


def shard_rows(local: np.ndarray, mesh: Mesh, spec: PartitionSpec = ROWS) -> Array:
    """Makes the global batch, or with spec BATCHES several, out of each process's own rows."""
    return jax.make_array_from_process_local_data(NamedSharding(mesh, spec), local)


def must_wait(mesh: Mesh) -> bool:
    """Whether each step must be awaited: CPU collectives deadlock when many steps run ahead."""
    return mesh.devices.size > 1 and mesh.devices.flat[0].platform == "cpu"


def single() -> bool:
    """Whether this is the only process of the run."""
    return jax.process_count() == 1


def is_main() -> bool:
    """Whether this process is the one that prints and writes."""
    return jax.process_index() == 0
