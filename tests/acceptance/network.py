"""A network of its own for a process, in which every address of the internet is this machine.

It has no name and no file: the kernel takes it away with the last process in it, however that one
ends. Nothing in it reaches the real network.
"""

import os
import shutil
import subprocess
import sys
from pathlib import Path

from tests.support.processes import running_as_root
from tests.support.servers import missing

ROOT = Path(__file__).resolve().parents[2]
TIMEOUT = 100.0
TOOLS = ("unshare", "mount", "ip")
#: Addresses that never answer: connecting to them ends in a timeout.
SILENT = ("8.8.4.4", "2606:4700::dead")
#: Where the name server of the network must listen.
NAME_SERVER = "127.0.0.53"

# Routes of the kind "local" make whole ranges this machine's own. A narrower one of another kind,
# in the same table, sends its packets in a circle, where they are dropped without a word. The
# addresses on lo are what connections come from: without them, resolvers would put silent addresses
# and those of IPv6 last.
SET_UP = f"""
ip link set lo up
ip address add 198.41.0.4/32 dev lo
ip address add 2001:4860:4860::1/128 dev lo nodad
ip route add local 0.0.0.0/0 dev lo
ip -6 route add local ::/0 dev lo
ip route add table local {SILENT[0]}/32 dev lo
ip -6 route add table local {SILENT[1]}/128 dev lo
mount --bind "$1/resolv.conf" /etc/resolv.conf
mount --bind "$1/hosts" /etc/hosts
mount --bind "$1/nsswitch.conf" /etc/nsswitch.conf
shift
exec "$@"
"""

FILES = {
    "resolv.conf": f"nameserver {NAME_SERVER}\nsearch corp.test\noptions timeout:1 attempts:1\n",
    "hosts": "127.0.0.1 localhost\n::1 localhost ip6-localhost\n10.0.0.7 intranet\n",
    "nsswitch.conf": "hosts: files dns\n",
}


def run_inside(directory: Path, module: str, *, text: str, variables: dict[str, str]) -> str:
    """Run a Python module in a new network, with `text` as its input; return what it printed.

    `directory` takes the files by which names are resolved, and is the module's argument. Skips
    the test where no such network can be made, see `missing`. Raises `CalledProcessError`.
    """
    for name, content in FILES.items():
        (directory / name).write_text(content)
    _require(directory)
    return subprocess.run(
        [*_in_a_new_network(directory), sys.executable, "-m", module, str(directory)],
        input=text,
        cwd=ROOT,
        env={**os.environ, **variables},
        stdout=subprocess.PIPE,
        text=True,
        check=True,
        timeout=TIMEOUT,
    ).stdout


def _in_a_new_network(directory: Path) -> list[str]:
    user = [] if running_as_root() else ["--map-root-user"]
    shell = ["/bin/sh", "-euc", SET_UP, "sh", str(directory)]
    return ["unshare", "--net", "--mount", *user, *shell]


def _require(directory: Path) -> None:
    if absent := [tool for tool in TOOLS if shutil.which(tool) is None]:
        missing(f"no network namespace: {', '.join(absent)} not found on PATH")
    command = [*_in_a_new_network(directory), "true"]
    made = subprocess.run(command, capture_output=True, text=True)
    if made.returncode:
        missing(f"no network namespace can be made: {made.stderr.strip()}")
