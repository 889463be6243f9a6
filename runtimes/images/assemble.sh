#!/bin/sh
# Build stage, second half, in the source tree: puts Roost into /opt/roost, removes what never runs there, compiles the rest.
# Arguments: patterns in site-packages that this image does without.
set -eu
export PYTHONDONTWRITEBYTECODE=1 # but by `compileall`, below
pip="/opt/build/bin/pip --no-cache-dir --disable-pip-version-check"
$pip wheel --no-deps --no-build-isolation --wheel-dir /tmp/wheel .
$pip --python /opt/roost/bin/python install --no-deps --no-index --no-compile /tmp/wheel/*.whl

cd "$(/opt/roost/bin/python -c 'import sysconfig; print(sysconfig.get_path("purelib"))')"
for part in backend datasets quantization tools transformers; do rm -rf "onnxruntime/$part"; done
rm -rf numpy/distutils
[ -d scipy ] || rm -rf numpy/f2py # SciPy imports all of NumPy
rm -rf $*  # unquoted: the arguments are patterns
find . -type d -name tests -prune -exec rm -rf {} +
find . -type f \( -name '*.pyi' -o -name '*.py[xd]' -o -name '*.[ahc]' -o -name '*.hpp' -o -name '*.cpp' \) -delete
# Bytecode that is not compared with its source: the root file system is read-only. The Kubernetes client's classes, made by
# the hundred, are left out: 50 MB of which a gateway loads next to nothing.
/opt/roost/bin/python -m compileall -q -j 0 --invalidation-mode unchecked-hash -x '/kubernetes/(aio/)?client/(models|api)/' .

# The standard library: images of Python come without its bytecode, and nobody can write it down at run time; a start would take
# half a second longer. What is made here goes to /compiled, to be laid over the final image; a base that has its own gets none.
library=$(/opt/roost/bin/python -c 'import sysconfig; print(sysconfig.get_path("stdlib"))')
touch /tmp/before
/opt/roost/bin/python -m compileall -q -j 0 --invalidation-mode unchecked-hash \
	-x '/(site-packages|dist-packages|test|tests|idlelib|lib2to3|ensurepip|tkinter|turtledemo|pydoc_data)/' "$library"
cd /
mkdir compiled
find ".$library" -name '*.pyc' -newer /tmp/before >/tmp/made
tar --create --files-from=/tmp/made | tar --extract --directory=/compiled
