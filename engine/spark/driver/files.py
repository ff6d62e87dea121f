# --- files ----------------------------------------------------------------------------------------------------------------

RECORD_MAX = 2 << 20
RAW_MAX = 1 << 20


class FileError(Exception):
    """A file that cannot be read as a whole; the others go on."""


SIGNATURES = (
    (b"\x1f\x8b", "a gzip file; its name must end in .gz"),
    (b"\x28\xb5\x2f\xfd", "a zstd file; its name must end in .zst"),
    (b"PK\x03\x04", "a zip archive or an office document; the name of an archive must end in .zip"),
    (b"PAR1", "a Parquet file"),
    (b"%PDF-", "a PDF document"),
    (b"\x7fELF", "a program"),
    (b"\xd0\xcf\x11\xe0", "an old office document"),
)


def unpacked(name, content):
    """The bytes of the one file that a compressed file holds."""
    import gzip
    import io
    import zipfile
    import zlib

    ext = os.path.splitext(name)[1].lower()
    if not content:
        return content
    try:
        if ext in (".gz", ".gzip"):
            return gzip.decompress(content)
        if ext in (".zst", ".zstd"):
            import pyarrow as pa

            return pa.CompressedInputStream(pa.BufferReader(content), "zstd").read()
        if ext == ".zip":
            with zipfile.ZipFile(io.BytesIO(content)) as z:
                files = [x for x in z.infolist() if not x.is_dir() and not ignored(x.filename) and not x.filename.startswith("__MACOSX/")]
                if len(files) != 1:
                    raise FileError(f"zip archive does not hold exactly one readable data file: it holds {len(files)}")
                return z.read(files[0])
    except (OSError, EOFError, zlib.error, zipfile.BadZipFile) as e:
        raise FileError(f"compressed file is damaged: {e}") from e
    return content


def in_utf8(content, encoding):
    """The text as UTF-8 without byte order mark; what the encoding does not define comes out as 0xFF."""
    import codecs

    for prefix, what in SIGNATURES:
        if content.startswith(prefix):
            raise FileError(f"not a text file: it looks like {what}")
    if content.startswith(b"\xef\xbb\xbf"):
        return content[3:], "utf-8"
    if content.startswith(b"\xff\xfe"):
        content, encoding = content[2:], "utf-16le"
    elif content.startswith(b"\xfe\xff"):
        content, encoding = content[2:], "utf-16be"
    name = (encoding or "utf-8").lower()
    if name in ("utf-8", "utf8"):
        return content, "utf-8"

    def undefined(e):
        # Browsers' encodings define each byte of the windows-125x family that Python's do not: as the control of its number.
        if name.startswith("windows-125") and 0x80 <= e.object[e.start] <= 0x9F:
            return chr(e.object[e.start]), e.start + 1
        return "\ufffd", max(e.end, e.start + 1)

    codecs.register_error("cauce", undefined)
    python = {"iso-8859-1": "windows-1252", "latin1": "windows-1252", "us-ascii": "windows-1252", "ascii": "windows-1252"}.get(name, name)
    try:
        return content.decode(python, "cauce").encode("utf-8", "surrogatepass").replace(b"\xef\xbf\xbd", b"\xff"), name
    except LookupError as e:
        raise FileError(f"encoding is not known: {encoding!r}") from e


def check_text(b):
    head = b[: 64 << 10]
    nul = head.find(0)
    if nul >= 0:
        raise FileError(f"not a text file: byte {nul} is NUL (UTF-16 without a mark needs csv.encoding: utf-16le or utf-16be)")
    odd = sum(1 for c in head.decode("utf-8", "replace") if c == "\ufffd" or c < " " and c not in "\t\n\r\f")
    if odd > 32 and odd > len(head) // 4:
        raise FileError(f"not a text file: {odd} of its first {len(head)} bytes are control characters or invalid UTF-8")


def cut(b):
    if len(b) <= RAW_MAX:
        return b
    n = RAW_MAX
    while n > 0 and b[n] & 0xC0 == 0x80:
        n -= 1
    return b[:n]


def printable(b):
    """Valid text without NUL, in which each byte that is not stands as \\xNN."""
    try:
        t = b.decode("utf-8")
        if "\0" not in t:
            return t
    except UnicodeDecodeError:
        pass
    out = b.decode("utf-8", "cauce_hex").replace("\0", "\\x00")
    return cut(out.encode("utf-8")).decode("utf-8", "ignore")


def register_hex():
    import codecs

    codecs.register_error("cauce_hex", lambda e: ("".join(f"\\x{c:02x}" for c in e.object[e.start : e.end]), e.end))


class Splitter:
    """Splits the bytes of a file into records, exactly as the embedded engine does (connect/csv): of a record that
    breaks the rules of quoting only the first line is bad, and reading goes on with the next line."""

    def __init__(self, data, csv, fields=0, encoding="utf-8"):
        self.data, self.fields, self.encoding = data, fields, encoding
        self.delimiter, self.quote = csv["delimiter"].encode(), csv["quote"].encode()
        self.multiline = csv["multiline"]

    def records(self):
        """(position, line, offset, raw bytes, [(value, quoted)] or None, why it is bad, unterminated)"""
        data, d, q = self.data, self.delimiter, self.quote
        at, line, position, size = 0, 1, 0, len(data)
        while at < size:
            nl = data.find(b"\n", at)
            end, after, lines = (nl, nl + 1, 1) if nl >= 0 else (size, size, 0)
            rec_end = end - 1 if end > at and data[end - 1] == 13 else end
            if rec_end == at:
                at, line = after, line + lines
                continue
            position += 1
            if end - at > RECORD_MAX:
                yield position, line, at, data[at : at + RAW_MAX], None, f"the line has {rec_end - at} bytes, more than the {RECORD_MAX} that a record may have", nl < 0, rec_end - at
                at, line = after, line + lines
                continue
            rec = data[at:rec_end]
            bad, values = "", None
            if q and q in rec:
                values, stop, after_q, lines_q, bad = self.quoted(at)
                if not bad and stop - at > RECORD_MAX:
                    bad = f"a quoted field is not closed within {RECORD_MAX} bytes"
                if not bad:
                    rec, after, lines = data[at:stop], after_q, lines_q
            else:
                values = [(v, False) for v in rec.split(d)]
            if not bad and self.fields and len(values) != self.fields:
                bad = f"the record has {len(values)} fields, expected {self.fields}"
            if not bad and 0 in rec:
                bad = "the record holds a NUL byte"
            if not bad:
                try:
                    rec.decode("utf-8")
                except UnicodeDecodeError as e:
                    bad = f"the record is not valid {self.encoding} at its byte {e.start + 1}"
            yield position, line, at, rec, None if bad else values, bad, data[after - 1] != 10, len(rec)
            at, line = after, line + lines

    def quoted(self, at):
        """The record at a place whose first line has a quote: values, its end, where the next begins, lines, why bad."""
        data, d, q = self.data, self.delimiter, self.quote
        values, lines, size = [], 0, len(data)
        while True:
            if not data.startswith(q, at):
                end = data.find(b"\n", at)
                if end < 0:
                    end = size
                i = data.find(d, at, end)
                if i >= 0:
                    if data.find(q, at, i) >= 0:
                        return None, 0, 0, 0, "a quote stands inside a field that does not begin with one"
                    values.append((data[at:i], False))
                    at = i + len(d)
                    continue
                stop = end - 1 if end > at and data[end - 1] == 13 else end
                if data.find(q, at, stop) >= 0:
                    return None, 0, 0, 0, "a quote stands inside a field that does not begin with one"
                values.append((data[at:stop], False))
                return (values, stop, end + 1, lines + 1, "") if end < size else (values, stop, size, lines, "")
            at += len(q)
            start, escaped = at, False
            while True:
                i = data.find(q, at)
                n = data.count(b"\n", at, i if i >= 0 else size)
                if n:
                    if not self.multiline:
                        return None, 0, 0, 0, "the line ends inside a quoted field, and csv.multiline is off"
                    lines += n
                if i < 0:
                    return None, 0, 0, 0, "a quoted field is not closed"
                at = i + len(q)
                if data.startswith(q, at):
                    escaped = True
                    at += len(q)
                    continue
                break
            v = data[start:i]
            values.append((v.replace(q + q, q) if escaped else v, True))
            if data.startswith(d, at):
                at += len(d)
            elif at == size:
                return values, at, at, lines, ""
            elif data.startswith(b"\n", at):
                return values, at, at + 1, lines + 1, ""
            elif data[at] == 13 and at + 1 == size:
                return values, at, at + 1, lines, ""
            elif data.startswith(b"\r\n", at):
                return values, at, at + 2, lines + 1, ""
            else:
                return None, 0, 0, 0, "a quote inside a quoted field is not doubled"


def field_names(values, known):
    """The names of a header: trimmed, none empty, none twice."""
    taken = {v.strip() for v in values}
    names = []
    for i, v in enumerate(values):
        n = v.strip()
        if n and n not in names:
            names.append(n)
            continue
        if n and (not known or n in known):
            raise FileError(f'header can\'t be used: it names "{n}" twice')
        base, k = n or "column", i + 1
        while f"{base}_{k}" in taken or f"{base}_{k}" in names:
            k += 1
        names.append(f"{base}_{k}")
    return names


def header(data, source, known, encoding):
    """(has a header, the names of the fields)"""
    csv = source["csv"]
    columns = csv.get("columns") or []
    first = next(Splitter(data, csv, 0, encoding).records(), None)
    if first is None:
        return False, list(columns), True
    if first[5]:
        if csv["header"] == "false" or csv["header"] == "auto" and columns:
            return False, list(columns), False
        raise FileError(f"header can't be used: line {first[1]}: {first[5]}")
    if any(b"\r" in v and not quoted for v, quoted in first[4]):
        raise FileError(f"line ends are mixed: line {first[1]} holds a CR before its end; lines end with LF, CR LF, or all of them with CR")
    values = [v.decode("utf-8") for v, _ in first[4]]
    low = {n.lower() for n in columns + (csv.get("optional") or []) + (csv.get("named") or [])}
    has = csv["header"] == "true" or csv["header"] == "auto" and (not columns or any(v.strip().lower() in low for v in values))
    if not has:
        if not columns:
            raise FileError("header can't be used: the file has none, and csv.columns names no fields")
        return False, list(columns), False
    return True, field_names(values, known), False


def file_records(source, program, name, content, modified):
    """What the records of one file are, each as a tuple of record_schema. Raises FileError."""
    digest = hashlib.sha256(content).hexdigest()
    data, encoding = in_utf8(unpacked(name, content), source["csv"].get("encoding"))
    check_text(data)
    if b"\n" not in data:
        data = data.replace(b"\r", b"\n")
    raw_fields = program["raw_fields"]
    has_header, fields, empty = header(data, source, raw_fields, encoding)
    optional = source["csv"].get("optional") or []
    missing = [f for f in raw_fields if f not in fields and f not in optional and not f.startswith("\0")]
    if missing and not empty:
        raise FileError(f"field is missing: {', '.join(missing)}; the file has {', '.join(fields)} (csv.optional names fields that a file may lack)")
    return digest, has_header, fields, rows_of(source, program, name, data, encoding, digest, has_header, fields, modified)


def json_text(s):
    """A text as JSON, in the spelling of Go's library."""
    short = {'"': '\\"', "\\": "\\\\", "\b": "\\b", "\f": "\\f", "\n": "\\n", "\r": "\\r", "\t": "\\t"}
    return '"' + "".join(short.get(c, f"\\u{ord(c):04x}" if c < " " or c in "\u2028\u2029" else c) for c in s) + '"'


# JSON of a text as the embedded engine's own writer of values has it.
VALUE = {**{i: f"\\u{i:04X}" for i in range(32)}, 8: "\\b", 9: "\\t", 10: "\\n", 12: "\\f", 13: "\\r", 34: '\\"', 92: "\\\\"}


def rows_of(source, program, name, data, encoding, digest, has_header, fields, generation):
    raw_fields = program["raw_fields"]
    at = [fields.index(f) if f in fields else -1 for f in raw_fields]
    others = [i for i, f in enumerate(fields) if f not in raw_fields]
    keep = raw_fields.index("\0unknown") if "\0unknown" in raw_fields else -1
    nulls = {v.encode() for v in source["csv"].get("null_values") or []}
    base, origin = os.path.basename(name), "f:" + digest[:16]
    groups = None
    if source.get("from_filename"):
        m = re.search(source["from_filename"], base)
        groups = {k: v or "" for k, v in m.groupdict().items()} if m else None
    seen = {}

    def value(v):
        t, quoted = v
        return t.decode("utf-8") if quoted or t and t not in nulls else None

    records = Splitter(data, source["csv"], len(fields), encoding).records()
    if has_header:
        next(records)
    for position, line, offset, rec, values, bad, _, size in records:
        if has_header:
            position -= 1
        raw = cut(rec)
        meta = (name, line, None, None, None, printable(raw) if bad else raw.decode("utf-8"), None, None, size, offset, None)
        if bad:
            yield (None,) * len(raw_fields) + (meta, position, origin, generation, base, groups, None, None, bad)
            continue
        r = [value(values[i]) if i >= 0 else None for i in at]
        unknown = None
        if program["uses_unknown"]:
            unknown = next((fields[i] for i in others if values[i][0]), None)
        if keep >= 0:
            rest = {fields[i]: value(values[i]) for i in others}
            rest = [f'{json_text(k)}:"{v.translate(VALUE)}"' for k, v in sorted(rest.items()) if v is not None]
            r[keep] = "{" + ",".join(rest) + "}" if rest else None
        occurrence = None
        if program["uses_occurrence"]:
            occurrence = seen[rec] = seen.get(rec, 0) + 1
        yield (*r, meta, position, origin, generation, base, groups, occurrence, unknown, None)


