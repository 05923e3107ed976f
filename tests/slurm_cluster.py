"""A private SLURM cluster on this machine: own folder, own ports, nothing listens elsewhere."""

import contextlib
import os
import re
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).parent.parent

CONF = """
ClusterName=private
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={ports[0]}
SlurmUser={user}
SlurmdUser={user}
AuthType=auth/munge
AuthInfo=socket={folder}/munge.socket,cred_expire=5
CredType=cred/munge
CommunicationParameters=NoInAddrAny,NoCtldInAddrAny
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool-%n
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd-%n.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd-%n.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
SchedulerParameters=batch_sched_delay=1,sched_interval=3,bf_interval=3
SlurmdParameters=config_overrides
ReturnToService=2
MailProg=/bin/true
{nodes}
PartitionName=all Nodes=ALL Default=YES MaxTime=INFINITE State=UP
"""


def free_ports(count: int) -> list[int]:
    """Ports that nothing listens on."""
    sockets = [socket.socket() for _ in range(count)]
    for each in sockets:
        each.bind(("127.0.0.1", 0))
    ports = [each.getsockname()[1] for each in sockets]
    for each in sockets:
        each.close()
    return ports


class Cluster:
    """Munge, a controller, and a node; as root two nodes, the second under another host name."""

    def __init__(self, folder: Path, slots: int):
        """slots: tasks at a time, on each node."""
        self.folder, self._daemons = folder, []
        host = os.uname().nodename.partition(".")[0]
        # A task of several connects to the first node by its name.
        self.nodes = [host, "localhost"] if os.getuid() == 0 and host != "localhost" else [host]
        ports = free_ports(1 + len(self.nodes))
        nodes = "\n".join(
            f"NodeName={name} NodeAddr=127.0.0.1 Port={port} CPUs={slots} State=UNKNOWN"
            for name, port in zip(self.nodes, ports[1:], strict=True)
        )
        user = subprocess.run(["id", "-un"], capture_output=True, text=True).stdout.strip()
        conf = CONF.format(folder=folder, host=host, ports=ports, user=user, nodes=nodes)
        (folder / "slurm.conf").write_text(conf)
        (folder / "cgroup.conf").write_text("CgroupPlugin=autodetect\nIgnoreSystemd=yes\n")
        (folder / "state").mkdir()
        self.env = {name: v for name, v in os.environ.items() if not name.startswith("SLURM_")}
        self.env |= {"SLURM_CONF": str(folder / "slurm.conf")}

    def __enter__(self) -> "Cluster":
        folder = self.folder
        (folder / "munge.key").touch(0o600)
        (folder / "munge.key").write_bytes(os.urandom(128))
        files = {"key-file": "key", "socket": "socket", "pid-file": "pid", "log-file": "log"}
        files |= {"seed-file": "seed"}
        places = [f"--{option}={folder}/munge.{end}" for option, end in files.items()]
        self._start("munged", "--foreground", "--force", *places)
        self._until(lambda: (folder / "munge.socket").exists(), "munged")
        self._start("slurmctld", "-D")
        for name in self.nodes:
            if name == "localhost":
                rename = f"hostname {name}; exec slurmd -D"
                self._start("unshare", "--uts", "sh", "-c", rename)
            else:
                self._start("slurmd", "-D")

        def idle() -> bool:
            states = self.call("sinfo", "-hN", "-o", "%T", check=False).split()
            return states == ["idle"] * len(self.nodes)

        self._until(idle, "the nodes")
        return self

    def __exit__(self, *error: object) -> None:
        """Ends all jobs and daemons, and kills what is left of them."""
        with contextlib.suppress(subprocess.SubprocessError):
            self.call("scancel", "-u", str(os.getuid()))
            deadline = time.monotonic() + 30
            while self.call("squeue", "-h") and time.monotonic() < deadline:
                time.sleep(0.5)
        for daemon in reversed(self._daemons):
            daemon.terminate()
        for daemon in self._daemons:
            with contextlib.suppress(subprocess.TimeoutExpired):
                daemon.wait(10)
        for pid in processes(f"SLURM_CONF={self.folder / 'slurm.conf'}"):
            kill(pid)

    def call(self, *command: str, check: bool = True) -> str:
        """What a command of SLURM prints."""
        done = subprocess.run(
            command, cwd=ROOT, env=self.env, stdout=subprocess.PIPE, text=True, check=check,
            timeout=60, stderr=None if check else subprocess.DEVNULL,
        )  # fmt: skip
        return done.stdout

    def submit(self, script: str, *arguments: str, options: str = "", **env: str) -> int:
        """The number of a new job; its files go to the cluster's folder."""
        env = {"RNNX_PYTHON": sys.executable, "RNNX_CACHE": str(self.folder / "cache"), **env}
        exports = ",".join(["ALL", *(f"{name}={value}" for name, value in env.items())])
        command = ["sbatch", "--parsable", f"--export={exports}", f"--chdir={self.work}"]
        command += [*shlex.split(options), f"scripts/slurm/{script}", *arguments]
        done = subprocess.run(
            command, cwd=self.work, env=self.env, stdout=subprocess.PIPE, text=True, check=True
        )
        return int(done.stdout)

    @property
    def work(self) -> Path:
        """A checkout to submit from: what the jobs write stays out of the real one."""
        place = self.folder / "checkout"
        if not place.exists():
            place.mkdir()
            for name in ("rnnx", "configs", "scripts"):
                (place / name).symlink_to(ROOT / name)
        return place

    def about(self, job: int | str) -> dict[str, str]:
        """What SLURM knows of a job."""
        for _ in range(9):  # on a busy machine the controller may not answer in time
            if text := self.call("scontrol", "-o", "show", "job", str(job), check=False):
                return dict(re.findall(r"(\S+?)=(\S*)", text.splitlines()[0]))
            time.sleep(1)
        raise AssertionError(f"SLURM knows no job {job}")

    def wait(self, job: int | str, *states: str, seconds: float = 900) -> dict[str, str]:
        """Waits until a job is in one of the states; what SLURM knows of it then."""
        deadline = time.monotonic() + seconds
        while (about := self.about(job))["JobState"] not in states:
            if time.monotonic() > deadline:
                raise AssertionError(f"job {job} is {about['JobState']}: {self.output(job)}")
            time.sleep(0.5)
        return about

    def output(self, job: int | str) -> str:
        """What a job has printed."""
        path = self.work / f"slurm-{job}.out"
        return path.read_text() if path.exists() else ""

    def runtime(self, job: int | str) -> str:
        """What the runtime of a job has printed."""
        path = self.work / f"slurm-{job}.runtime"
        return path.read_text() if path.exists() else ""

    def tasks(self, module: str, job: str) -> list[int]:
        """The processes of a job's tasks."""
        found = []
        for pid in processes(f"SLURM_JOB_ID={job}", f"SLURM_CONF={self.folder / 'slurm.conf'}"):
            with contextlib.suppress(OSError):
                words = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
                if words[1:3] == [b"-m", module.encode()]:
                    found.append(pid)
        return sorted(found)

    def _start(self, *command: str) -> None:
        log = open(self.folder / "daemons.log", "a")  # noqa: SIM115 - lives with the daemon
        path = shutil.which(command[0])
        self._daemons.append(
            subprocess.Popen([path, *command[1:]], env=self.env, stdout=log, stderr=log, cwd="/")
        )

    def _until(self, ready, what: str) -> None:
        deadline = time.monotonic() + 60
        while not ready():
            if time.monotonic() > deadline or any(d.poll() is not None for d in self._daemons):
                log = (self.folder / "daemons.log").read_text()
                self.__exit__()
                raise SystemExit(f"the private cluster did not start ({what}):\n{log[-2000:]}")
            time.sleep(0.3)


def processes(*variables: str) -> list[int]:
    """The processes whose environment holds all of these, each NAME=VALUE; not this one."""
    found = []
    for place in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            env = (place / "environ").read_bytes().split(b"\0")
            if int(place.name) != os.getpid() and all(v.encode() in env for v in variables):
                found.append(int(place.name))
    return found


def kill(pid: int) -> None:
    """SIGKILL."""
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)
