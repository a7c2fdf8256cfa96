"""An isolated network namespace in which this machine has every address of the internet.

The namespace is anonymous: the kernel removes it when its last process ends. Nothing in it reaches
the real network.
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
#: Addresses that never respond: connections to them time out.
SILENT = ("8.8.4.4", "2606:4700::dead")
#: The address on which the network's DNS server must listen.
NAME_SERVER = "127.0.0.53"

# Routes of type "local" assign whole ranges to this machine. For the silent addresses, a more
# specific route of another type loops packets until they are dropped. The addresses on lo are the
# source addresses of connections: without them, resolvers would sort silent and IPv6 addresses
# last.
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
    """Run a Python module in a new network with `text` as its input, and return its output.

    The files that configure name resolution are written to `directory`, which is the module's
    argument. If the network can't be created, the test is skipped; see `missing`. Raises
    `CalledProcessError`.
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
