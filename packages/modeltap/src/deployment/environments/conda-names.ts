/** What becomes of one conda package: a name on PyPI, nothing because wheels bring it along, or a refusal with its fix. */
export type CondaFate =
  | { readonly kind: 'pypi'; readonly name: string; readonly note?: string }
  | { readonly kind: 'dropped' }
  | { readonly kind: 'refused'; readonly fix: string };

/** Conda's name → the name (and extras) on PyPI, where they differ. Names are normalised as PyPI does it. */
const RENAMED: Readonly<Record<string, string>> = {
  brotli: 'Brotli',
  'brotli-python': 'Brotli',
  'dask-core': 'dask',
  'docker-py': 'docker',
  faiss: 'faiss-cpu',
  'geopandas-base': 'geopandas',
  'keras-gpu': 'keras',
  'matplotlib-base': 'matplotlib',
  'msgpack-python': 'msgpack',
  'numpy-base': 'numpy',
  opencv: 'opencv-python-headless',
  pil: 'pillow',
  psycopg2: 'psycopg2-binary',
  'py-lightgbm': 'lightgbm',
  'py-opencv': 'opencv-python-headless',
  'py-xgboost': 'xgboost',
  'py-xgboost-cpu': 'xgboost',
  'py-xgboost-gpu': 'xgboost',
  'pyarrow-core': 'pyarrow',
  pyg: 'torch-geometric',
  pyqt: 'PyQt5',
  pytables: 'tables',
  'python-annoy': 'annoy',
  'python-confluent-kafka': 'confluent-kafka',
  'python-duckdb': 'duckdb',
  'python-fastjsonschema': 'fastjsonschema',
  'python-flatbuffers': 'flatbuffers',
  'python-graphviz': 'graphviz',
  'python-kubernetes': 'kubernetes',
  'python-tzdata': 'tzdata',
  'python-xxhash': 'xxhash',
  pytorch: 'torch',
  'pytorch-cpu': 'torch',
  'pytorch-geometric': 'torch-geometric',
  'pytorch-gpu': 'torch',
  'ray-core': 'ray',
  'ray-default': 'ray[default]',
  'ray-serve': 'ray[serve]',
  'ruamel-yaml': 'ruamel.yaml',
  'seaborn-base': 'seaborn',
  'tensorflow-base': 'tensorflow',
  'tensorflow-gpu': 'tensorflow',
  'uvicorn-standard': 'uvicorn[standard]',
  xgboost: 'xgboost',
};

/** Libraries and markers without Python code of their own: a wheel holds the libraries it needs. */
const DROPPED = new Set(
  `arrow-cpp aws-c-common blas boost-cpp bzip2 c-ares ca-certificates cairo conda cpuonly cudatoolkit cudnn dbus expat fontconfig freetype
  fribidi geos gflags giflib glib glog gmp gnutls graphite2 grpc-cpp gst-plugins-base gstreamer harfbuzz hdf4 hdf5 icc-rt icu
  intel-openmp jpeg keyutils krb5 lame lcms2 lerc libtorch llvm-openmp lz4-c metis mkl mkl-devel mkl-include mkl-fft mkl-random
  mpc mpfr msys2-conda-epoch nccl ncurses nettle nomkl openblas openblas-devel openh264 openjpeg openssl orc pcre pcre2 pixman
  proj pthread-stubs python-abi python-abi3 python-gil pytorch-cuda pytorch-mutex qt qt-main re2 readline s2n snappy sqlite
  tbb tbb4py tensorflow-mutex tk ucrt utf8proc vc vc14-runtime vs2015-runtime xz yaml yaml-cpp zeromq zlib zstd`.split(
    /\s+/,
  ),
);

/** Also dropped, by the shape of the name: `libgcc-ng`, `_openmp_mutex`, `cuda-runtime`, `gcc_linux-64`, `xorg-libx11`. */
const DROPPED_SHAPE = /^(?:lib|-|cuda-|xorg-|aws-c-|ld-impl-|sysroot-)|-(?:mutex|linux-64|win-64|osx-64|ng)$/;

/** Python packages whose names only look like those of libraries. */
const LOOKS_LIKE_A_LIBRARY = new Set([
  'cuda-bindings',
  'cuda-python',
  'libarchive-c',
  'libclang',
  'libcst',
  'librosa',
  'libsass',
  'libtmux',
]);

const ON_THE_MACHINE = 'Install it on the machine where it is needed, and remove the line.';
const RAPIDS =
  'It is not on PyPI under this name. Move it to "pip:" with the --extra-index-url of its publisher, or remove it.';

/** Not Python at all, or published for conda only. */
const REFUSED: Readonly<Record<string, string>> = {
  cmdstan: ON_THE_MACHINE,
  cudf: RAPIDS,
  cuml: RAPIDS,
  'faiss-gpu': 'Use faiss-cpu, or a package of "pip:" that holds it.',
  ffmpeg: ON_THE_MACHINE,
  gcc: ON_THE_MACHINE,
  gdal: 'Its package on PyPI is built against the GDAL of the machine: move it to "pip:" with the version the machine has, or remove it.',
  git: ON_THE_MACHINE,
  go: ON_THE_MACHINE,
  graphviz:
    'The programs of Graphviz come with the machine. For the Python package, name python-graphviz or move graphviz to "pip:".',
  'java-jdk': ON_THE_MACHINE,
  julia: ON_THE_MACHINE,
  mpi: ON_THE_MACHINE,
  mpich: ON_THE_MACHINE,
  nodejs: ON_THE_MACHINE,
  openjdk: ON_THE_MACHINE,
  openmpi: ON_THE_MACHINE,
  perl: ON_THE_MACHINE,
  poppler: ON_THE_MACHINE,
  r: 'R is not served here; remove the line.',
  rapids: RAPIDS,
  rust: ON_THE_MACHINE,
  tesseract: ON_THE_MACHINE,
};

/** `Scikit_Learn` → `scikit-learn`: PyPI's normal form of a name, in which names are compared. */
export function normalName(name: string): string {
  return name.toLowerCase().replace(/[-_.]+/g, '-');
}

/** What becomes of a conda package here. A name in no table is taken to be the same on PyPI. */
export function condaFate(condaName: string): CondaFate {
  const name = normalName(condaName);
  const refused = REFUSED[name];
  if (refused !== undefined) return { kind: 'refused', fix: refused };
  if (/^(?:r|perl|rb|bioconductor)-/.test(name)) {
    return { kind: 'refused', fix: 'It is not a Python package; remove the line.' };
  }
  if (name.startsWith('spacy-model-')) {
    return { kind: 'refused', fix: 'Models of spaCy are not on PyPI: move the URL of its wheel to "pip:".' };
  }
  const renamed = RENAMED[name];
  if (renamed !== undefined) {
    return renamed === name
      ? { kind: 'pypi', name }
      : { kind: 'pypi', name: renamed, note: `conda's ${condaName} is ${renamed} on PyPI` };
  }
  if (!LOOKS_LIKE_A_LIBRARY.has(name) && (DROPPED.has(name) || DROPPED_SHAPE.test(name))) return { kind: 'dropped' };
  return { kind: 'pypi', name: condaName };
}
