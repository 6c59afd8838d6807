"""The processor, and the time that a process or a PostgreSQL server had of it."""

import os
from pathlib import Path


def cpu_name() -> str:
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    return next((x.partition(": ")[2] for x in lines if x.startswith("model name")), "?")


def _fields(pid: int) -> list[str]:
    """Of /proc/PID/stat what follows the program's name: state, parent, …"""
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()


def process_seconds(pid: int) -> float:
    """CPU seconds of a live process and the children that it has waited for; 0 of none."""
    return sum(map(int, _fields(pid)[11:15])) / os.sysconf("SC_CLK_TCK") if pid else 0.0


def server_seconds(postmaster: int) -> float:
    """CPU seconds of a server: its live processes, and those that it has waited for."""
    ticks = 0
    for process in Path("/proc").glob("[0-9]*"):
        pid = int(process.name)
        try:
            fields = _fields(pid)
        except OSError:
            continue
        if pid == postmaster:
            ticks += sum(map(int, fields[11:15]))
        elif int(fields[1]) == postmaster:
            ticks += sum(map(int, fields[11:13]))
    return ticks / os.sysconf("SC_CLK_TCK")
