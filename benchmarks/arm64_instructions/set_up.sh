#!/usr/bin/env bash
# Makes a folder for `python -m benchmarks.arm64_instructions`: Python, NumPy and LiteRT for ARM64, and QEMU's plugin.
#
#     sudo apt-get install --no-install-recommends qemu-user gcc
#     benchmarks/arm64_instructions/set_up.sh FOLDER
#
# It needs Debian or Ubuntu, and installs nothing: packages are downloaded and unpacked into the folder, 250 MB.
set -euo pipefail

if [ $# -ne 1 ]; then
  echo "usage: $0 FOLDER" >&2
  exit 2
fi
for program in qemu-aarch64 gcc; do
  if ! command -v $program >/dev/null; then
    echo "error: $program is missing; sudo apt-get install --no-install-recommends qemu-user gcc" >&2
    exit 2
  fi
done
mkdir -p "$1"
folder=$(cd "$1" && pwd)
here=$(cd "$(dirname "$0")" && pwd)
checkout=$here/../..
python=$checkout/.venv/bin/python

gcc -O2 -shared -fPIC -o "$folder/count.so" "$here/count.c"

# Debian's packages for ARM64, with lists and a status of their own, so that this system's stay as they are.
mkdir -p "$folder"/apt/{lists,archives}/partial "$folder/root"
: >"$folder/apt/status"
cat >"$folder/apt/conf" <<END
APT::Architecture "arm64";
APT::Architectures { "arm64"; };
APT::Sandbox::User "";
Dir::State::lists "$folder/apt/lists";
Dir::State::status "$folder/apt/status";
Dir::Cache "$folder/apt";
END
export APT_CONFIG=$folder/apt/conf
apt-get update --quiet=2
minimal=$(apt-cache depends python3-minimal | grep --only-matching 'python3\.[0-9]*-minimal' | head -n 1)
version=${minimal#python} version=${version%-minimal}
apt-get install --quiet=2 --yes --download-only --no-install-recommends \
  "$minimal" "libpython$version-stdlib" libstdc++6 zlib1g >/dev/null
for package in "$folder"/apt/archives/*.deb; do
  dpkg --extract "$package" "$folder/root"
done
ln -sf "python$version" "$folder/root/usr/bin/python3"

# LiteRT reads here on which processor it runs, and crashes if that is none of ARM. This is the Kryo of a Snapdragon 820.
mkdir -p "$folder/root/proc"
cat >"$folder/root/proc/cpuinfo" <<END
processor	: 0
Features	: fp asimd evtstrm aes pmull sha1 sha2 crc32
CPU implementer	: 0x51
CPU architecture: 8
CPU variant	: 0x1
CPU part	: 0x205
CPU revision	: 1
END

mapfile -t pins < <(grep -oE '^(ai-edge-litert|numpy)==[0-9.]+' "$checkout/requirements.txt")
"$python" -m pip download --quiet --no-deps --only-binary=:all: --dest="$folder/wheels" \
  --implementation=cp --python-version="$version" --platform=manylinux_2_{27,28}_aarch64 "${pins[@]}"
for wheel in "$folder"/wheels/*.whl; do
  "$python" -m zipfile --extract "$wheel" "$folder/packages"
done
echo "ready: .venv/bin/python -m benchmarks.arm64_instructions --machine=$1"
