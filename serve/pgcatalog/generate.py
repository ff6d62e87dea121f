#!/usr/bin/env python3
"""Writes catalog.zip: the rows of PostgreSQL's system catalogue as a freshly made database has them, and the columns and types
of all its tables, for the names and object identifiers that clients expect. Run it against a new PostgreSQL of the version
that serve.ServerVersion names (initdb -U cauce; createdb lake):

    python3 generate.py psql -h HOST -p PORT -U cauce lake

What is text of PostgreSQL's own (descriptions, rules, function bodies) is left out.
"""
import csv, io, subprocess, sys, zipfile

PSQL = sys.argv[1:] + ["-X", "-q", "-v", "ON_ERROR_STOP=1", "-c"]
EMPTY = {"pg_statistic", "pg_rewrite", "pg_depend", "pg_shdepend", "pg_init_privs", "pg_description", "pg_shdescription", "pg_statistic_ext_data"}
DROP = {("pg_settings", "short_desc"), ("pg_settings", "extra_desc"), ("pg_proc", "prosrc"), ("pg_proc", "probin"), ("pg_proc", "prosqlbody"), ("pg_proc", "proargdefaults")}
OIDS = {"oid", "regproc", "regclass", "regtype", "xid", "cid"}
INTS = {"int2vector", "oidvector", "_int2", "_oid", "_int4"}


def rows(sql):
    out = subprocess.run(PSQL + [f"COPY ({sql}) TO STDOUT (FORMAT csv, FORCE_QUOTE *)"], check=True, capture_output=True, text=True).stdout
    return out


columns = list(csv.reader(io.StringIO(rows("""
    SELECT c.relname, a.attname, t.typname, n.nspname FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace JOIN pg_attribute a ON a.attrelid = c.oid JOIN pg_type t ON t.oid = a.atttypid
    WHERE n.nspname IN ('pg_catalog', 'information_schema') AND c.relkind IN ('r', 'v') AND a.attnum > 0 ORDER BY n.nspname, c.relname, a.attnum"""))))
domains = dict(csv.reader(io.StringIO(rows("SELECT t.typname, b.typname FROM pg_type t JOIN pg_type b ON b.oid = t.typbasetype WHERE t.typtype = 'd'"))))
tables = {}
for table, column, typ, schema in columns:
    tables.setdefault((schema, table), []).append((column, domains.get(typ, typ)))
kinds = dict(csv.reader(io.StringIO(rows("SELECT n.nspname || '.' || c.relname, c.relkind FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace WHERE c.relkind IN ('r', 'v')"))))


def select(table, column, typ):
    q = '"' + column + '"'
    if (table, column) in DROP:
        return "NULL"
    if typ in OIDS:
        return f"{q}::oid::bigint" if typ not in ("xid", "cid") else f"{q}::text::bigint"
    if typ in INTS:
        return f"'[' || array_to_string({q}, ', ') || ']'"
    if typ == "_aclitem":
        return f"to_json({q}::text[])"
    if typ.startswith("_"):
        return f"to_json({q})"
    if typ in ("anyarray", "pg_node_tree"):
        return "NULL"
    return q


with zipfile.ZipFile("catalog.zip", "w", zipfile.ZIP_DEFLATED) as z:
    def add(name, text):
        info = zipfile.ZipInfo(name, (2000, 1, 1, 0, 0, 0))  # the same bytes from the same catalogue
        info.compress_type = zipfile.ZIP_DEFLATED
        z.writestr(info, text)

    out = io.StringIO()
    w = csv.writer(out)
    for (schema, table), cols in tables.items():
        for column, typ in cols:
            w.writerow([schema, table, column, typ])
    add("columns.csv", out.getvalue())
    for (schema, table), cols in tables.items():
        own = kinds[schema + "." + table] == "r" or table in ("pg_settings",)
        if schema != "pg_catalog" or not own or table in EMPTY:
            continue
        items = ", ".join(select(table, c, t) for c, t in cols)
        order = "oid" if any(c == "oid" for c, _ in cols) else "1, 2" if len(cols) > 1 else "1"
        if table == "pg_attribute":
            order = "attrelid, attnum"
        text = rows(f"SELECT {items} FROM pg_catalog.{table} ORDER BY {order}")
        if text:
            add(table + ".csv", text)
    out = rows("SELECT word, catcode, barelabel, catdesc, baredesc FROM pg_get_keywords()")
    add("pg_get_keywords.csv", out)
