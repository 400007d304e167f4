# Reads the Parquet files of a directory with DuckDB and with pyarrow, and prints a line per row and reader.
import datetime
import pathlib
import sys

import duckdb
import pyarrow
import pyarrow.dataset
import pyarrow.parquet


def text(v):
    if v is None:
        return "null"
    if isinstance(v, bool):
        return str(v).lower()
    if isinstance(v, bytes):
        return v.hex()
    if isinstance(v, datetime.datetime):
        return v.astimezone(datetime.timezone.utc).isoformat() if v.tzinfo else v.isoformat()
    return str(v)


def show(reader, names, rows):
    for row in rows:
        print(reader, " ".join(f"{n}={text(v)}" for n, v in zip(names, row)))


directory = sys.argv[1]
db = duckdb.connect()
db.execute("SET TimeZone='UTC'")
result = db.execute(f"SELECT * FROM read_parquet('{directory}/*/*.parquet', union_by_name=true) ORDER BY id")
show("duckdb", [d[0] for d in result.description], result.fetchall())

files = sorted(str(p) for p in pathlib.Path(directory).glob("*/*.parquet"))
schema = pyarrow.unify_schemas([pyarrow.parquet.read_schema(f) for f in files], promote_options="permissive")
table = pyarrow.dataset.dataset(files, schema=schema, format="parquet").to_table().sort_by("id")
show("pyarrow", table.column_names, zip(*[c.to_pylist() for c in table.columns]))
