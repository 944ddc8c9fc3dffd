#!/usr/bin/env python3
"""What `homing status --watch` costs on a terminal of 80 by 24, while it shows the lab and its traffic.

    benches/view.py PROGRAM SECONDS
"""
import fcntl
import os
import pty
import select
import struct
import subprocess
import sys
import termios
import time

NAME = "view"
TICKS = os.sysconf("SC_CLK_TCK")


def processor_seconds(pid):
    with open(f"/proc/{pid}/stat") as file:
        fields = file.read().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / TICKS


def resident_megabytes(pid):
    with open(f"/proc/{pid}/status") as file:
        return next(int(line.split()[1]) for line in file if line.startswith("VmRSS")) / 1000


def read_for(terminal, seconds):
    """What came within these seconds."""
    seen, end = b"", time.monotonic() + seconds
    while (left := end - time.monotonic()) > 0:
        if select.select([terminal], [], [], left)[0]:
            try:
                seen += os.read(terminal, 65536)
            except OSError:
                break  # the program has ended
    return seen


def watch(program, seconds):
    pid, terminal = pty.fork()
    if pid == 0:
        os.environ["TERM"] = "xterm-256color"
        runtime = f"/run/homing-lab/{NAME}/run"
        inside = [program, "status", "--watch", "--runtime-dir", runtime]
        os.execv(program, [program, "lab", "exec", "router", "--name", NAME, "--", *inside])
    fcntl.ioctl(terminal, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 80, 0, 0))
    read_for(terminal, 3)
    before = processor_seconds(pid)
    seen = read_for(terminal, seconds)
    spent, resident = processor_seconds(pid) - before, resident_megabytes(pid)
    os.write(terminal, b"q")
    read_for(terminal, 0.5)
    os.waitpid(pid, 0)
    if not seen:
        sys.exit("it showed nothing new")
    print(f"live view: {100 * spent / seconds:.2f} % of a core, resident {resident:.1f} MB, "
          f"{len(seen) / seconds:.0f} bytes written a second")


def main():
    program, seconds = os.path.abspath(sys.argv[1]), float(sys.argv[2])
    lab = subprocess.Popen([program, "lab", "--name", NAME, "--no-table"], stdout=subprocess.PIPE, text=True)
    try:
        for line in lab.stdout:
            if "is ready" in line:
                break
        watch(program, seconds)
    finally:
        lab.terminate()
        lab.wait()


if __name__ == "__main__":
    main()
