"""What the server of children imports before it forks them: everything that takes long, and nothing that starts threads."""

import duckdb  # noqa: F401
import embedstore_cli.main  # noqa: F401
import faiss  # noqa: F401
import h5py  # noqa: F401
import pyarrow.parquet  # noqa: F401
import safetensors.numpy  # noqa: F401
import scipy.sparse.linalg  # noqa: F401
import sklearn.linear_model  # noqa: F401
import xgboost  # noqa: F401
