#!/usr/bin/env python3
"""Cauce on Apache Spark: runs what `cauce spark render` wrote.

    spark-submit … driver.py APP.json

APP.json holds a compiled lake file: every expression of it stands there as Spark SQL. This file brings what SQL lacks:
exact readings of texts (the same as those of the embedded engine, docs/expressions.md), readers that split files and
messages exactly, progress in the table (docs/spark.md), and the merge.
"""

import datetime
import fractions
import hashlib
import json
import math
import os
import re
import struct
import sys
import unicodedata
import zoneinfo

# --- exact readings of texts ------------------------------------------------------------------------------------------

BLANKS = " \t\r\n"
NUMBER = re.compile(r"([+-]?)([0-9]*)(?:\.([0-9]*))?(?:[eE]([+-]?[0-9]+))?", re.ASCII)


def parse_number(s):
    """(negative, digits, exponent) of a decimal number: digits x 10^exponent, without zeros at either end; None."""
    m = NUMBER.fullmatch(s.strip(BLANKS))
    if m is None or not (m[2] or m[3]):
        return None
    frac = m[3] or ""
    exp = 0
    if m[4]:
        exp = int(m[4]) if len(m[4]) < 9 else (-1000000 if m[4][0] == "-" else 1000000)
        exp = max(-1000000, min(1000000, exp))
    digits = m[2] + frac
    exp -= len(frac)
    digits = digits.lstrip("0")
    short = digits.rstrip("0")
    exp += len(digits) - len(short)
    if not short:
        return (False, "", 0)
    return (m[1] == "-", short, exp)


def unscaled(n, precision, scale):
    """The number x 10^scale as digits, if it is whole and has at most so many; None."""
    _, digits, exp = n
    if not digits:
        return "0"
    zeros = exp + scale
    if zeros < 0 or len(digits) + zeros > precision:
        return None
    return digits + "0" * zeros


def to_long(s):
    n = parse_number(s)
    d = n and unscaled(n, 19, 0)
    if not d:
        return None
    v = -int(d) if n[0] else int(d)
    return v if -(1 << 63) <= v < 1 << 63 else None


def to_decimal(s, precision, scale):
    n = parse_number(s)
    d = n and unscaled(n, precision, scale)
    if not d:
        return None
    if scale:
        d = d.rjust(scale + 1, "0")
        d = d[:-scale] + "." + d[-scale:]
    return "-" + d if n[0] else d


SPECIAL = {"nan": math.nan, "inf": math.inf, "+inf": math.inf, "infinity": math.inf, "+infinity": math.inf, "-inf": -math.inf, "-infinity": -math.inf}


def to_double(s):
    s = s.strip(BLANKS)
    if s.lower() in SPECIAL:
        return SPECIAL[s.lower()]
    if parse_number(s) is None:
        return None
    v = float(s)
    return None if math.isinf(v) else v


FLOAT_MAX = 3.4028234663852886e38


def to_float(s):
    """The nearest FLOAT. Rounding to DOUBLE first could round twice, so its neighbours are looked at too."""
    v = to_double(s)
    if v is None or math.isnan(v) or math.isinf(v):
        return v
    exact = fractions.Fraction(s.strip(BLANKS)) if len(s) < 2000 and abs(v) > 1e-60 else fractions.Fraction(v)
    if abs(exact) >= 2**128 - 2**103:  # half-way to what would be the next FLOAT
        return None
    best = struct.unpack("f", struct.pack("f", max(-FLOAT_MAX, min(FLOAT_MAX, v))))[0]
    bits = struct.unpack("i", struct.pack("f", best))[0]
    for b in (bits - 1, bits + 1):
        g = struct.unpack("f", struct.pack("I", b & 0xFFFFFFFF))[0]
        if math.isnan(g) or math.isinf(g):
            continue
        near, far = abs(fractions.Fraction(g) - exact), abs(fractions.Fraction(best) - exact)
        if near < far or near == far and b % 2 == 0:
            best = g
    return best


def days_in(y, m):
    return 29 if m == 2 and y % 4 == 0 and (y % 100 != 0 or y % 400 == 0) else (31, 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31)[m - 1]


def valid_date(y, m, d):
    return y >= 1 and 1 <= m <= 12 and 1 <= d <= days_in(y, m)


EPOCH = datetime.date(1970, 1, 1).toordinal()
DATE = re.compile(r"([0-9]{4})(-?)([0-9]{2})\2([0-9]{2})", re.ASCII)


def to_date(s):
    m = DATE.fullmatch(s.strip(BLANKS))
    if m is None:
        return None
    y, mo, d = int(m[1]), int(m[3]), int(m[4])
    return datetime.date(y, mo, d).toordinal() - EPOCH if valid_date(y, mo, d) else None


ISO = re.compile(
    r"([0-9]{4})(-?)([0-9]{2})\2([0-9]{2})"
    r"(?:[Tt ](?:([0-9]{2}):([0-9]{2})(?::([0-9]{2})(?:[.,]([0-9]+))?)?|([0-9]{2})([0-9]{2})(?:([0-9]{2})(?:[.,]([0-9]+))?)?))?"
    r" *(Z|z|UTC|GMT|[+-][0-9]{2}(?::?[0-9]{2})?)?",
    re.ASCII,
)
TIME_MIN = -62135596800000000
TIME_MAX = 253402300799999999

ZONES = {}


def zone_offset(zone, seconds):
    """Seconds that clocks of the zone are ahead of UTC at an instant."""
    z = ZONES.get(zone)
    if z is None:
        z = ZONES[zone] = zoneinfo.ZoneInfo(zone)
    try:
        at = datetime.datetime(1970, 1, 1, tzinfo=datetime.timezone.utc) + datetime.timedelta(seconds=seconds)
        return int(at.astimezone(z).utcoffset().total_seconds())
    except OverflowError:
        edge = 1 if seconds < 0 else 9998
        return int(datetime.datetime(edge, 1, 2, tzinfo=z).utcoffset().total_seconds())


def from_zone(seconds, zone):
    """The instant at which clocks of the zone show it. A time that they skip counts with the offset before the change,
    one that they show twice with the offset of the first pass, as far as one look at the offset tells."""
    if zone in ("", "UTC"):
        return seconds
    return seconds - zone_offset(zone, seconds - zone_offset(zone, seconds))


def parse_zone(z):
    """Offset in seconds; None if it is no zone."""
    if z in ("Z", "z", "UTC", "GMT"):
        return 0
    h, m = int(z[1:3]), int(z[-2:]) if len(z) > 3 else 0
    if h > 18 or m > 59:
        return None
    return -(h * 3600 + m * 60) if z[0] == "-" else h * 3600 + m * 60


def micros(fraction):
    return int((fraction or "")[:6].ljust(6, "0"))


def instant(y, mo, d, h, mi, sec, us, offset, zone):
    days = datetime.date(y, mo, d).toordinal() - EPOCH
    t = days * 86400 + h * 3600 + mi * 60 + sec
    t = from_zone(t, zone) if offset is None else t - offset
    us += t * 1000000
    return us if TIME_MIN <= us <= TIME_MAX else None


def to_timestamp(s, zone):
    s = s.strip(BLANKS)
    m = ISO.fullmatch(s)
    if m is None:
        return None
    timed = m[5] is not None or m[9] is not None
    if not timed and (len(s) != 10 or m[2] != "-"):
        return None  # YYYYMMDD alone is a number, and a day has no zone
    y, mo, d = int(m[1]), int(m[3]), int(m[4])
    h, mi, sec, us = int(m[5] or m[9] or 0), int(m[6] or m[10] or 0), int(m[7] or m[11] or 0), micros(m[8] or m[12])
    if not valid_date(y, mo, d) or h > 23 or mi > 59 or sec > 59:
        return None
    offset = None
    if m[13]:
        offset = parse_zone(m[13])
        if offset is None:
            return None
    return instant(y, mo, d, h, mi, sec, us, offset, zone)


def to_wall(s):
    t = s.strip(BLANKS)
    if any(c in "+-Zz" for c in t[10:]) or t.endswith(("UTC", "GMT")):
        return None
    return to_timestamp(t, "UTC")


def to_event_time(s, zone):
    n = parse_number(s)
    if n is None:
        return to_timestamp(s, zone)
    negative, digits, exp = n
    if not digits:
        return 0
    whole = exp + len(digits)
    if whole > 19 or exp < -30:
        return None
    e = exp + (6 if whole <= 11 else 3 if whole <= 14 else 0 if whole <= 17 else -3)
    v = -int(digits) if negative else int(digits)
    us = v * 10**e if e >= 0 else v // 10**-e
    return us if TIME_MIN <= us <= TIME_MAX else None


MONTHS = ("january", "february", "march", "april", "may", "june", "july", "august", "september", "october", "november", "december")


def to_pattern_time(s, pattern, zone):
    s = s.strip(BLANKS)
    y, mo, d, yday, h, mi, sec, us = 1970, 1, 1, 0, 0, 0, 0, 0
    offset, twelve, pm = None, False, False

    def number(width, exactly=False):
        nonlocal s
        n = 0
        while n < len(s) and n < width and s[n] in "0123456789":
            n += 1
        if n == 0 or exactly and n < width:
            return None
        v, s = int(s[:n]), s[n:]
        return v

    i = 0
    while i < len(pattern):
        c = pattern[i]
        i += 1
        if c != "%" or i == len(pattern):
            if not s.startswith(c):
                return None
            s = s[1:]
            continue
        c = pattern[i]
        i += 1
        v = 0
        if c == "Y":
            v = y = number(4, True)
        elif c == "y":
            v = number(2, True)
            if v is not None:
                y = 1900 + v + (100 if v < 69 else 0)
        elif c == "m":
            v = mo = number(2)
        elif c == "d":
            v = d = number(2)
        elif c == "H":
            v = h = number(2)
        elif c == "I":
            v = h = number(2)
            twelve = True
            if v is not None and not 1 <= v <= 12:
                return None
        elif c == "M":
            v = mi = number(2)
        elif c == "S":
            v = sec = number(2)
        elif c == "f":
            n = 0
            while n < len(s) and s[n] in "0123456789":
                n += 1
            if n == 0:
                return None
            us, s = micros(s[:n]), s[n:]
        elif c == "j":
            v = yday = number(3)
            if not v:
                return None
        elif c == "p":
            if s[:2].lower() not in ("am", "pm"):
                return None
            pm, s = s[:2].lower() == "pm", s[2:]
        elif c in "bB":
            for k, name in enumerate(MONTHS):
                name = name if c == "B" else name[:3]
                if s[: len(name)].lower() == name:
                    mo, s = k + 1, s[len(name) :]
                    break
            else:
                return None
        elif c == "z":
            n = 0
            while n < len(s) and s[n] in "+-:0123456789Z":
                n += 1
            z, s = s[:n], s[n:]
            if not re.fullmatch(r"Z|[+-][0-9]{2}(:?[0-9]{2})?", z, re.ASCII):
                return None
            offset = parse_zone(z)
            if offset is None:
                return None
        elif c == "%":
            if not s.startswith("%"):
                return None
            s = s[1:]
        else:
            return None
        if v is None:
            return None
    if s:
        return None
    if twelve:
        h = h % 12 + (12 if pm else 0)
    if yday:
        if not 1 <= y <= 9999 or yday > (366 if days_in(y, 2) == 29 else 365):
            return None
        day = datetime.date(y, 1, 1) + datetime.timedelta(days=yday - 1)
        mo, d = day.month, day.day
    if not valid_date(y, mo, d) or h > 23 or mi > 59 or sec > 59:
        return None
    return instant(y, mo, d, h, mi, sec, us, offset, zone)


def to_upper(s):
    """Upper case letter by letter: a letter that has no upper case of one letter stays as it is."""
    return "".join("\u1e9e" if c == "\u00df" else u if len(u := c.upper()) == 1 else t if len(t := c.title()) == 1 else c for c in s)


def to_lower(s):
    """Lower case letter by letter."""
    return "".join("i" if c == "\u0130" else c.lower() for c in s)


def substr(s, start, count):
    n = len(s)
    if count == 0:
        return ""
    if start > 0:
        first = min(n, start - 1)
    elif start < 0:
        first = max(n + start, 0)
    else:
        first = 0
        count -= 1
        if count <= 0:
            return ""
    if count > 0:
        return s[first : min(n, first + count)]
    return s[max(0, first + count) : first]


def split_part(s, separator, n):
    parts = s.split(separator) if separator else list(s)
    if n < 0:
        n += len(parts) + 1
    return parts[n - 1] if 1 <= n <= len(parts) else ""


def round_double(x, digits):
    if math.isnan(x) or math.isinf(x):
        return x

    def away(v):
        if math.isnan(v) or math.isinf(v) or abs(v) >= 2.0**52:
            return v
        r = math.trunc(v)
        return math.copysign(float(r + (1 if v > 0 else -1)) if abs(v - r) >= 0.5 else float(r), v)

    try:
        scale = 10.0 ** abs(digits)
    except OverflowError:
        scale = math.inf
    if digits < 0:
        v = away(x / scale) * scale
        return 0.0 if math.isinf(v) or math.isnan(v) else v
    v = away(x * scale) / scale
    return x if math.isinf(v) or math.isnan(v) else v


def round_long(x, digits):
    if digits >= 0:
        return x
    if digits < -18:
        return 0
    p = 10**-digits
    q = (abs(x) + p // 2) // p * p
    v = -q if x < 0 else q
    return v if -(1 << 63) <= v < 1 << 63 else None


def whole_double(f):
    def g(x):
        if math.isnan(x) or math.isinf(x) or abs(x) >= 2.0**52:
            return x
        return math.copysign(float(f(x)), x)

    return g


def float_text(x, single):
    """The shortest text that reads back the same, as the embedded engine writes it: 1.0, 1e+16, 1e-05, nan, inf."""
    if math.isnan(x):
        return "nan"
    if math.isinf(x):
        return "inf" if x > 0 else "-inf"
    if single:
        for p in range(1, 10):
            t = f"{x:.{p}g}"
            if struct.pack("f", float(t)) == struct.pack("f", x):
                x = float(t)
                break
    return repr(x)


def quote(s):
    """The text in double quotes, as the embedded engine quotes values for people (Go's %q)."""
    if len(s.encode("utf-8", "surrogatepass")) > 200:
        cut = s.encode("utf-8", "surrogatepass")[:200].decode("utf-8", "ignore")
        s = cut + "…"
    out = []
    short = {"\a": "\\a", "\b": "\\b", "\f": "\\f", "\n": "\\n", "\r": "\\r", "\t": "\\t", "\v": "\\v", '"': '\\"', "\\": "\\\\"}
    for c in s:
        n = ord(c)
        if c in short:
            out.append(short[c])
        elif n < 0x80 and 0x20 <= n < 0x7F or n > 0xA0 and n != 0xAD and unicodedata.category(c)[0] in "LMNPS":
            out.append(c)
        elif n < 0x80:
            out.append(f"\\x{n:02x}")
        elif n < 0x10000:
            out.append(f"\\u{n:04x}")
        else:
            out.append(f"\\U{n:08x}")
    return '"' + "".join(out) + '"'


# Name -> function and SQL type of its value. A null argument gives null; each function sees values only.
FUNCTIONS = {
    "cauce_long": (to_long, "bigint"),
    "cauce_double": (to_double, "double"),
    "cauce_float": (to_float, "double"),
    "cauce_date": (to_date, "int"),
    "cauce_decimal": (to_decimal, "string"),
    "cauce_event_time": (to_event_time, "bigint"),
    "cauce_timestamp": (to_timestamp, "bigint"),
    "cauce_wall": (to_wall, "bigint"),
    "cauce_pattern_time": (to_pattern_time, "bigint"),
    "cauce_from_zone": (lambda us, zone: from_zone(us // 1000000, zone) * 1000000 + us % 1000000, "bigint"),
    "cauce_upper": (to_upper, "string"),
    "cauce_lower": (to_lower, "string"),
    "cauce_substr": (substr, "string"),
    "cauce_split_part": (split_part, "string"),
    "cauce_round": (round_double, "double"),
    "cauce_round_long": (round_long, "bigint"),
    "cauce_floor": (whole_double(math.floor), "double"),
    "cauce_ceil": (whole_double(math.ceil), "double"),
    "cauce_float_text": (float_text, "string"),
    "cauce_quote": (quote, "string"),
}


def register(spark):
    """Makes FUNCTIONS callable from SQL; batches travel as Arrow where this Spark can do that without pandas."""
    from pyspark.sql import functions as F

    arrow_udf = getattr(F, "arrow_udf", None)
    for name, (fn, typ) in FUNCTIONS.items():
        spark.udf.register(name, arrow_udf(by_column(fn, typ), typ) if arrow_udf else F.udf(by_value(fn), typ))


def by_value(fn):
    return lambda *args: None if any(a is None for a in args) else fn(*args)


def by_column(fn, typ):
    def run(*columns):
        import pyarrow as pa

        kind = {"bigint": pa.int64(), "int": pa.int32(), "double": pa.float64(), "string": pa.string()}[typ]
        first = columns[0]
        if first.null_count == len(first):
            return pa.nulls(len(first), kind)
        lists = [c.to_pylist() for c in columns]
        return pa.array([None if None in args else fn(*args) for args in zip(*lists)], kind)

    # Spark takes the kind of function from its annotations.
    import pyarrow as pa
    import typing

    run.__annotations__ = {"columns": pa.Array, "return": pa.Array}
    del typing
    return run


# --- a compiled plan ----------------------------------------------------------------------------------------------------

# What the readers give each record, beside its raw fields r0, r1 …
META = "struct<file:string,line:bigint,topic:string,partition:int,offset:bigint,raw:string,raw_binary:binary,key:binary,raw_bytes:bigint,raw_offset:bigint>"


def record_schema(program):
    raw = "".join(f"r{i} string, " for i in range(len(program["raw_fields"])))
    return raw + f"meta {META}, p bigint, o string, g bigint, fn string, fg map<string,string>, occ bigint, u string, bad string"


def apply_layers(records, program, at):
    """Runs filter, fields, casts, transform and checks. Each row then has its number of the first broken rule in s."""
    from pyspark.sql import functions as F

    rows = records.withColumn("at", F.lit(at).cast("timestamp"))
    for layer in program["layers"]:
        if layer.get("where"):
            rows = rows.where(layer["where"])
        rows = rows.selectExpr(*layer["select"])
    return rows


def rule_case(program, what):
    """SQL that picks something of the rule whose number stands in s."""
    if not program["rules"]:
        return "CAST(NULL AS STRING)"
    return "CASE s " + " ".join(f"WHEN {i + 1} THEN {what(r)}" for i, r in enumerate(program["rules"])) + " END"


def text(s):
    return "'" + s.replace("\\", "\\\\").replace("'", "\\'") + "'"


def quarantined(rows, program):
    """The rows that broke a rule which does not merely drop them, with rule and reason."""
    numbers = [str(i + 1) for i, r in enumerate(program["rules"]) if not r.get("filter")]
    if not numbers:
        return rows.where("false").selectExpr("meta", "p", "o", "g", "'' AS rule", "'' AS reason")
    return rows.where(f"s IN ({', '.join(numbers)})").selectExpr(
        "meta", "p", "o", "g", rule_case(program, lambda r: text(r["name"])) + " AS rule", rule_case(program, lambda r: r.get("reason") or "''") + " AS reason"
    )


def good(rows, program):
    return rows.where("s IS NULL").selectExpr(*program["final"])


def winners(rows, program, key):
    """Of each key the row with the greatest order, and how many lost."""
    over = "row_number() OVER (PARTITION BY " + ", ".join(key) + " ORDER BY " + ", ".join(program["window"]) + ") AS _n"
    return rows.selectExpr("*", program["row_hash"] + " AS _row").selectExpr("*", over)


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
    raw_fields = program["raw_fields"]
    has_header, fields, empty = header(data, source, raw_fields, encoding)
    optional = source["csv"].get("optional") or []
    missing = [f for f in raw_fields if f not in fields and f not in optional and not f.startswith("\0")]
    if missing and not empty:
        raise FileError(f"field is missing: {', '.join(missing)}; the file has {', '.join(fields)} (csv.optional names fields that a file may lack)")
    return digest, has_header, fields, rows_of(source, program, name, data, encoding, digest, has_header, fields, modified)


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
        meta = (name, line, None, None, None, printable(raw) if bad else raw.decode("utf-8"), None, None, size, offset)
        if bad:
            yield (None,) * len(raw_fields) + (meta, position, origin, generation, base, groups, None, None, bad)
            continue
        r = [value(values[i]) if i >= 0 else None for i in at]
        unknown = None
        if program["uses_unknown"]:
            unknown = next((fields[i] for i in others if values[i][0]), None)
        if keep >= 0:
            rest = {fields[i]: value(values[i]) for i in others}
            rest = {k: v for k, v in sorted(rest.items()) if v is not None}
            r[keep] = json.dumps(rest, ensure_ascii=False, separators=(",", ":")) if rest else None
        occurrence = None
        if program["uses_occurrence"]:
            occurrence = seen[rec] = seen.get(rec, 0) + 1
        yield (*r, meta, position, origin, generation, base, groups, occurrence, unknown, None)


# --- storage ----------------------------------------------------------------------------------------------------------------


class Store:
    """Objects below the root of the lake, through Hadoop's file systems."""

    def __init__(self, spark, root):
        self.jvm = spark.sparkContext._jvm
        self.root = root.rstrip("/")
        self.conf = spark.sparkContext._jsc.hadoopConfiguration()
        self.fs = self.path("").getFileSystem(self.conf)

    def url(self, key):
        return self.root + "/" + key if key else self.root

    def path(self, key):
        return self.jvm.org.apache.hadoop.fs.Path(self.url(key))

    def list(self, prefix):
        """(key, size, modified in ms) of every object below a prefix."""
        top = self.path(prefix)
        if not self.fs.exists(top):
            return []
        cut_at = len(self.fs.makeQualified(self.path("")).toUri().getPath().rstrip("/")) + 1
        out, it = [], self.fs.listFiles(top, True)
        while it.hasNext():
            f = it.next()
            out.append((f.getPath().toUri().getPath()[cut_at:], f.getLen(), f.getModificationTime()))
        return sorted(out)

    def read(self, key):
        p = self.path(key)
        if not self.fs.exists(p):
            return None
        stream = self.fs.open(p)
        try:
            return bytes(self.jvm.org.apache.hadoop.io.IOUtils.readFullyToByteArray(stream))
        finally:
            stream.close()

    def write(self, key, content, overwrite=False):
        out = self.fs.create(self.path(key), overwrite)
        out.write(content)
        out.close()


def ignored(key):
    """Names that are never read: hidden files, unfinished ones, checksums of others."""
    if any(p.startswith((".", "_")) for p in key.split("/")):
        return True
    return os.path.splitext(key)[1].lower() in IGNORED


IGNORED = {".tmp", ".part", ".partial", ".crdownload", ".download", ".filepart", ".swp", ".checksum", ".sha256", ".sha512", ".md5"}


def matches(pattern, key):
    import fnmatch

    def segments(p, k):
        if not p:
            return not k
        if p[0] == "**":
            return any(segments(p[1:], k[i:]) for i in range(len(k) + 1))
        return bool(k) and fnmatch.fnmatchcase(k[0], p[0].replace("[^", "[!")) and segments(p[1:], k[1:])

    return segments(pattern.split("/"), key.split("/"))


def rfc3339(us):
    t = datetime.datetime(1970, 1, 1) + datetime.timedelta(microseconds=us)
    return t.strftime("%Y-%m-%dT%H:%M:%S.%fZ")


class Progress:
    """What a source has covered (docs/lake-file.md, progress): the txn of the table says up to which epoch, a chain of
    immutable files what each of them read."""

    def __init__(self, store, table, source, incarnation):
        import urllib.parse

        self.store, self.table, self.source, self.incarnation = store, table, source, incarnation
        self.app_id = f"cauce/1/{source}/{incarnation}"
        self.dir = "processed/_progress/" + "/".join(urllib.parse.quote(x, safe="$&+=:@~") for x in (source, incarnation))
        self.load()

    def json(self, name):
        content = self.store.read(f"{self.dir}/{name}")
        try:
            return json.loads(content) if content is not None else None
        except ValueError:
            return None

    def load(self):
        self.epoch, self.last, self.compacted = self.table.txn(self.app_id) or 0, "", ""
        self.files, self.contents, self.positions = {}, {}, {}
        if not self.epoch:
            return
        name = self.winner(self.epoch)
        chain, total = [], None
        while name:
            e = self.json(name)
            if e is None or e["table_id"] != self.table.id:
                break
            if total is None and e.get("compacted"):
                total = self.json(e["compacted"])
            if total is not None and e["epoch"] <= total["epoch"]:
                break
            chain.append((name, e))
            name = e.get("previous", "")
        for f in (total or {}).get("files") or []:
            self.files[f["name"]] = f
            if f["origin"] in (total.get("origins") or {}):
                self.contents[f["sha256"]] = f["origin"]
        for name, e in reversed(chain):
            self.last, self.compacted = name, e.get("compacted", "")
            for f in e.get("files") or []:
                for o in f.get("replaces") or []:
                    if o != f["origin"]:
                        self.contents = {h: x for h, x in self.contents.items() if x != o}
            for f in e.get("files") or []:
                self.files[f["name"]] = f
                self.contents[f["sha256"]] = f["origin"]
            for p in e.get("positions") or []:
                self.positions[p["partition"]] = p

    def winner(self, epoch):
        w = self.json(f"{epoch}.json")
        if w and w["table_id"] == self.table.id:
            return w["file"]
        for v in range(self.table.version, -1, -1):
            meta = self.table.user_metadata(v)
            if meta is None:
                return ""
            if meta.startswith(f"{self.dir}/{epoch}-"):
                return meta[len(self.dir) + 1 :]
        return ""

    def begin(self, kind, plan, at, **covered):
        """Writes what the next epoch covers and gives the key by which the commit names it."""
        import uuid

        e = {"format": 1, "source": self.source, "incarnation": self.incarnation, "table": self.table.name, "table_id": self.table.id, "epoch": self.epoch + 1,
             "id": str(uuid.uuid4()), "kind": kind, "plan": plan, "written_at": at}
        if self.last:
            e["previous"] = self.last
        if self.compacted:
            e["compacted"] = self.compacted
        e.update(covered)
        self.name = f"{e['epoch']}-{e['id']}.json"
        self.store.write(f"{self.dir}/{self.name}", json.dumps(e).encode())
        return f"{self.dir}/{self.name}"

    def confirm(self, version):
        w = {"epoch": self.epoch + 1, "file": self.name, "table_id": self.table.id, "version": version}
        self.store.write(f"{self.dir}/{self.epoch + 1}.json", json.dumps(w).encode() + b"\n", overwrite=True)


# --- tables -----------------------------------------------------------------------------------------------------------------


class Table:
    """A Delta table below the root; created as the lake file declares it."""

    def __init__(self, spark, store, spec):
        self.spark, self.store, self.spec = spark, store, spec
        self.name, self.path = spec["name"], store.url(spec["path"])
        self.sql = f"delta.`{self.path}`"
        columns = ", ".join(spec["columns"])
        parts = f" PARTITIONED BY ({', '.join(spec['partition_by'])})" if spec["partition_by"] else ""
        props = ", ".join(f"{text(k)} = {text(v)}" for k, v in sorted(spec["properties"].items()))
        if store.read(spec["path"] + "/_delta_log/00000000000000000000.json") is None and not self.exists():
            spark.sql(f"CREATE TABLE IF NOT EXISTS {self.sql} ({columns}) USING delta{parts}" + (f" TBLPROPERTIES ({props})" if props else ""))
        self.refresh()

    def exists(self):
        return bool(self.store.list(self.spec["path"] + "/_delta_log"))

    def refresh(self):
        jvm = self.spark.sparkContext._jvm
        log = jvm.org.apache.spark.sql.delta.DeltaLog.forTable(self.spark._jsparkSession, self.path)
        s = log.update(False, jvm.scala.Option.empty(), jvm.scala.Option.empty())
        self.snapshot, self.version, self.id = s, s.version(), s.metadata().id()

    def txn(self, app_id):
        v = self.snapshot.transactions().get(app_id)
        return v.get() if v.isDefined() else None

    def user_metadata(self, version):
        """commitInfo.userMetadata of a commit; None if the log no longer has it."""
        content = self.store.read(f"{self.spec['path']}/_delta_log/{version:020d}.json")
        if content is None:
            return None
        for line in content.splitlines():
            if b'"commitInfo"' in line:
                return json.loads(line).get("commitInfo", {}).get("userMetadata") or ""
        return ""

    def merge(self, condition, matched, inserted, rows, txn=None, metadata=None):
        """Runs one MERGE with Delta's own txn, and gives the version that it made."""
        conf = self.spark.conf
        try:
            if txn:
                conf.set("spark.databricks.delta.write.txnAppId", txn[0])
                conf.set("spark.databricks.delta.write.txnVersion", str(txn[1]))
            if metadata:
                conf.set("spark.databricks.delta.commitInfo.userMetadata", metadata)
            rows.createOrReplaceTempView("_cauce_source")
            self.spark.sql(f"MERGE INTO {self.sql} t USING _cauce_source s ON {condition} {matched} WHEN NOT MATCHED THEN INSERT {inserted}")
        finally:
            for k in ("write.txnAppId", "write.txnVersion", "commitInfo.userMetadata"):
                conf.unset("spark.databricks.delta." + k)
        self.refresh()


    def user_metadata_of_txn(self, app_id, version, since):
        """commitInfo.userMetadata of the commit after a version that carries a txn; None if none does."""
        for v in range(since + 1, self.version + 1):
            content = self.store.read(f"{self.spec['path']}/_delta_log/{v:020d}.json") or b""
            actions = [json.loads(line) for line in content.splitlines() if line]
            if any(a.get("txn", {}).get("appId") == app_id and a["txn"]["version"] == version for a in actions):
                return next((a["commitInfo"].get("userMetadata") for a in actions if "commitInfo" in a), None)
        return None


class Conflict(Exception):
    """Another run of the source committed the epoch."""


# --- an epoch -----------------------------------------------------------------------------------------------------------------


def commit_epoch(spark, app, table, quarantine, progress, rows, bad, at, kind, **covered):
    """Quarantines the bad rows and merges the good ones, in one commit with the epoch's txn. Gives its counts."""
    program, merge, source = app["program"], app["merge"], app["source"]
    failing = [str(i + 1) for i, r in enumerate(program["rules"]) if r.get("fails")]
    filtering = [str(i + 1) for i, r in enumerate(program["rules"]) if r.get("filter")]
    one = rows.selectExpr(
        "count(*) AS n",
        "count_if(s IS NULL) AS kept",
        f"count_if(s IN ({', '.join(filtering) or '-1'})) AS filtered",
        f"count_if(s IN ({', '.join(failing) or '-1'})) AS failed",
        *[f"count_if(s IS NULL AND {w['column']}) AS w{i}_n" for i, w in enumerate(program.get("warn") or [])],
    ).first()
    if one["failed"]:
        r = quarantined(rows.where(f"s IN ({', '.join(failing)})"), program).first()
        raise DataError(f"expectation {r['rule']} (on_fail: fail) failed for {one['failed']} rows; first: {r['reason']}")
    structural = bad.count()
    counts = {"rows_read": one["n"] + structural, "rows_filtered": one["filtered"], "rows_quarantined": one["n"] - one["kept"] - one["filtered"] + structural}
    counts["warned"] = {w["name"]: one[f"w{i}_n"] for i, w in enumerate(program.get("warn") or []) if one[f"w{i}_n"]}
    key = progress.begin(kind, program["hash"], at, **covered)
    if counts["rows_quarantined"]:
        q = quarantined(rows, program).unionByName(bad.selectExpr("meta", "p", "o", "g", "'structure' AS rule", "bad AS reason"))
        q = q.selectExpr(
            f"{text(table.name)} AS `table`", f"{text(source['name'])} AS source", "o AS origin", "p AS position", "g AS generation", "meta.file AS file", "meta.line AS line",
            "meta.topic AS topic", "meta.partition AS `partition`", "meta.offset AS `offset`", "rule", "reason", "meta.raw AS raw", "meta.raw_bytes AS raw_bytes", "meta.raw_offset AS raw_offset",
            f"{text(program['hash'])} AS plan", f"CAST({progress.epoch + 1} AS BIGINT) AS epoch", f"{text(key)} AS progress", f"timestamp_micros({at_micros(at)}) AS quarantined_at",
            "CAST(NULL AS TIMESTAMP) AS resolved_at", "meta.raw_binary AS raw_binary", "meta.key AS message_key",
        ).dropDuplicates(["source", "origin", "position", "rule"])
        quarantine.merge("t.source = s.source AND t.origin = s.origin AND t.position = s.position AND t.rule = s.rule", "WHEN MATCHED THEN UPDATE SET *", "*", q)
    final = winners(good(rows, program), program, merge["key"])
    final.createOrReplaceTempView("_cauce_rows")
    won = spark.table("_cauce_rows").where("_n = 1").drop("_n").cache()
    kept = won.count()
    matched = f"WHEN MATCHED AND {merge['greater']} THEN UPDATE SET {merge['set']}"
    before = table.version
    # What the merge will do to whom is asked of the snapshot beforehand, for the report alone.
    won.createOrReplaceTempView("_cauce_won")
    what = spark.sql(
        f"SELECT count_if({merge['inserted']}) AS inserted, count_if({merge['updated']}) AS updated, count_if({merge['deleted']}) AS deleted "
        f"FROM _cauce_won s LEFT JOIN (SELECT *, true AS _old FROM {table.sql}) t ON {merge['condition']}"
    ).first()
    try:
        table.merge(merge["condition"], matched, merge["insert"], won, (progress.app_id, progress.epoch + 1), key)
    finally:
        won.unpersist()
    name = table.user_metadata_of_txn(progress.app_id, progress.epoch + 1, before)
    if name != key:
        raise Conflict(f"epoch {progress.epoch + 1} of source {source['name']} was committed by {name or 'somebody else'}")
    progress.confirm(table.version)
    changed = {k: what[k] or 0 for k in ("inserted", "updated", "deleted")}
    counts.update({"rows_" + k: n for k, n in changed.items()}, version=table.version)
    counts["rows_unchanged"] = one["kept"] - sum(changed.values())
    return counts


def at_micros(at):
    t = datetime.datetime.strptime(at, "%Y-%m-%dT%H:%M:%S.%fZ") - datetime.datetime(1970, 1, 1)
    return (t.days * 86400 + t.seconds) * 1000000 + t.microseconds


class DataError(Exception):
    """Data broke a rule with on_fail: fail: exit code 3."""


# --- batch ------------------------------------------------------------------------------------------------------------------

EPOCH_FILES_MAX = 500


def now_rfc3339():
    return datetime.datetime.now(datetime.timezone.utc).strftime("%Y-%m-%dT%H:%M:%S.%fZ")


def batch(spark, app):
    """Reads the files of a source that are new, as `cauce run batch` does."""
    from pyspark.sql import types as T

    source, program = app["source"], app["program"]
    store = Store(spark, app["root"])
    table, quarantine = Table(spark, store, app["table"]), Table(spark, store, app["quarantine"])
    progress = Progress(store, table, source["name"], "files")
    report = {"files_read": 0, "files_skipped": 0, "epochs": 0, "warnings": [], "failed_files": [], "warned": {}}
    for k in COUNTS:
        report[k] = 0
    schema = T._parse_datatype_string(record_schema(program))

    new = []
    for key, size, modified in [f for p in source["prefixes"] for f in store.list(p)]:
        if not any(matches(p, key) for p in source["location"]) or ignored(key):
            continue
        had = progress.files.get(key)
        if had and had["size"] == size and micros_of(had["mtime"]) // 1000 == modified and had["sha256"] in progress.contents:
            report["files_skipped"] += 1
        else:
            new.append((key, size, modified))

    for start in range(0, len(new), EPOCH_FILES_MAX):
        files = new[start : start + EPOCH_FILES_MAX]
        modified = {k: m * 1000 for k, _, m in files}
        sizes = {k: n for k, n, _ in files}
        root_path = store.fs.makeQualified(store.path("")).toUri().getPath().rstrip("/") + "/"
        contents = spark.read.format("binaryFile").load([store.url(k) for k in sizes]).select("path", "content")

        def key_of(path, root_path=root_path):
            import urllib.parse

            return urllib.parse.urlparse(path).path[len(root_path) :]

        marks = look(contents, source, program, key_of, modified)
        for key in [k for k in sizes if sizes[k] == 0]:  # Spark passes over them
            try:
                digest, has_header, fields, _ = file_records(source, program, key, b"", 0)
                marks[key] = (digest, fields if has_header else None, None)
            except FileError as e:
                marks[key] = (None, None, str(e))
        cover, wanted, seen = [], {}, set()
        for key in sorted(sizes):
            digest, fields, error = marks.get(key, (None, None, "the file vanished while it was read"))
            if error:
                report["failed_files"].append({"source": source["name"], "file": key, "error": error})
                continue
            generation = generation_of(source, key, modified[key])
            mark = {"name": key, "size": sizes[key], "mtime": rfc3339(modified[key]), "sha256": digest, "origin": "f:" + digest[:16], "generation": generation, "rows": 0}
            if fields:
                mark["fields"] = fields
            had = progress.files.get(key)
            reissue = had is not None and had["sha256"] != digest
            if digest in seen or digest in progress.contents and not reissue:
                mark["copy"] = True
                report["files_skipped"] += 1
            else:
                seen.add(digest)
                wanted[key] = generation
            cover.append(mark)
        if not wanted:
            continue
        at = now_rfc3339()
        records = contents.mapInArrow(reader(source, program, key_of, wanted, schema), schema).cache()
        rows = apply_layers(records.where("bad IS NULL"), program, datetime.datetime.fromtimestamp(at_micros(at) / 1e6, datetime.timezone.utc)).cache()
        try:
            per_file = {r[0]: r[1] for r in records.groupBy("meta.file").count().collect()}
            for m in cover:
                m["rows"] = 0 if m.get("copy") else per_file.get(m["name"], 0)
            counts = commit_epoch(spark, app, table, quarantine, progress, rows, records.where("bad IS NOT NULL"), at, "batch", files=cover)
        finally:
            rows.unpersist()
            records.unpersist()
        report["epochs"] += 1
        report["files_read"] += len(wanted)
        for k in COUNTS:
            report[k] += counts[k]
        for k, n in counts["warned"].items():
            k = f"{table.name}.{k}"
            report["warned"][k] = report["warned"].get(k, 0) + n
        progress.load()
    report["version"] = table.version
    return report


COUNTS = ("rows_read", "rows_inserted", "rows_updated", "rows_unchanged", "rows_quarantined", "rows_filtered", "rows_deleted")


def micros_of(rfc):
    m = re.fullmatch(r"(.*?)(?:\.([0-9]+))?(Z|[+-][0-9:]+)", rfc)
    t = datetime.datetime.fromisoformat(m[1] + ("+00:00" if m[3] == "Z" else m[3]))
    return int(t.timestamp()) * 1000000 + micros(m[2])


def generation_of(source, key, modified):
    if not source.get("generation"):
        return modified
    m = re.search(source["from_filename"], os.path.basename(key))
    t = m and m.groupdict().get(source["generation"])
    if not t:
        raise FileError("the name does not match from_filename, which holds the file's generation")
    for layout in ("%Y-%m-%d", "%Y%m%d", "%Y-%m-%dT%H:%M:%S", "%Y%m%dT%H%M%S", "%Y%m%d%H%M%S", "%Y-%m-%d_%H-%M-%S"):
        try:
            d = datetime.datetime.strptime(t, layout) - datetime.datetime(1970, 1, 1)
            return (d.days * 86400 + d.seconds) * 1000000
        except ValueError:
            continue
    return int(t)


def look(contents, source, program, key_of, modified):
    """Of each file its hash, its header's names and why it cannot be read, found where the files are."""

    def run(batches):
        import pyarrow as pa

        for b in batches:
            out = []
            for path, content in zip(b.column(0).to_pylist(), b.column(1).to_pylist()):
                key = key_of(path)
                try:
                    digest, has_header, fields, _ = file_records(source, program, key, content, 0)
                    out.append((key, digest, json.dumps(fields) if has_header else None, None))
                except FileError as e:
                    out.append((key, hashlib.sha256(content).hexdigest(), None, str(e)))
            yield pa.RecordBatch.from_arrays([pa.array(c, pa.string()) for c in zip(*out)] if out else [pa.array([], pa.string())] * 4, ["k", "h", "f", "e"])

    return {k: (h, f and json.loads(f), e) for k, h, f, e in contents.mapInArrow(run, "k string, h string, f string, e string").collect()}


def reader(source, program, key_of, wanted, schema):
    """Splits the wanted files into records, where the files are."""
    names = [f.name for f in schema.fields]
    meta_names = [f.name for f in schema["meta"].dataType.fields]

    def run(batches):
        import pyarrow as pa

        kinds = {"p": pa.int64(), "g": pa.int64(), "occ": pa.int64(), "fg": pa.map_(pa.string(), pa.string())}
        meta_kinds = {"line": pa.int64(), "partition": pa.int32(), "offset": pa.int64(), "raw_binary": pa.binary(), "key": pa.binary(), "raw_bytes": pa.int64(), "raw_offset": pa.int64()}
        meta = pa.struct([(n, meta_kinds.get(n, pa.string())) for n in meta_names])
        arrow = pa.schema([(n, meta if n == "meta" else kinds.get(n, pa.string())) for n in names])

        def flush(rows):
            columns = []
            for n, values in zip(names, zip(*rows)):
                if n == "meta":
                    values = [dict(zip(meta_names, v)) for v in values]
                elif n == "fg":
                    values = [None if v is None else list(v.items()) for v in values]
                columns.append(pa.array(values, arrow.field(n).type))
            return pa.RecordBatch.from_arrays(columns, schema=arrow)

        register_hex()
        for b in batches:
            for path, content in zip(b.column(0).to_pylist(), b.column(1).to_pylist()):
                key = key_of(path)
                if key not in wanted:
                    continue
                rows = []
                for r in file_records(source, program, key, content, wanted[key])[3]:
                    rows.append(r)
                    if len(rows) == 5000:
                        yield flush(rows)
                        rows = []
                if rows:
                    yield flush(rows)

    return run


# --- prove --------------------------------------------------------------------------------------------------------------


def float_bits(x):
    return None if x is None else "nan" if math.isnan(x) else struct.pack(">d", x).hex()


def prove(spark, app):
    """Runs each case's records through its program, and writes what became of each of them as lines of JSON."""
    from pyspark.sql import types as T

    for case in app["cases"]:
        program = case["program"]
        with open(case["input"], encoding="utf-8") as f:
            lines = [json.loads(line) for line in f]
        schema = T._parse_datatype_string(record_schema(program))
        data = []
        for x in lines:
            meta = (x.get("file"), None, None, None, None, None, None, None, None, None)
            data.append(tuple(x["r"]) + (meta, x["p"], x["o"], x["g"], x.get("fn"), x.get("fg"), x.get("occ"), x.get("u"), None))
        try:
            rows = apply_layers(spark.createDataFrame(data, schema), program, datetime.datetime.fromtimestamp(0, datetime.timezone.utc))
            what = ["p", "s", rule_case(program, lambda r: r.get("reason") or "''")] + [sql for sql, _ in case["texts"]]
            with open(case["output"], "w", encoding="utf-8") as out:
                for p, s, reason, *values in rows.selectExpr(*what).collect():
                    rule = program["rules"][s - 1] if s else {}
                    if rule.get("filter"):
                        continue
                    if rule:
                        print(json.dumps({"p": p, "rule": rule["name"], "reason": reason}), file=out)
                        continue
                    shown = [float_bits(v) if kind == "float" else v for v, (_, kind) in zip(values, case["texts"])]
                    print(json.dumps({"p": p, "row": shown}), file=out)
        except Exception as e:  # the other cases still tell something
            with open(case["output"], "w", encoding="utf-8") as out:
                print(json.dumps({"error": str(e)[:4000]}), file=out)


def session(app):
    from pyspark.sql import SparkSession

    builder = SparkSession.builder.appName(app.get("name", "cauce"))
    delta = {
        "spark.sql.extensions": "io.delta.sql.DeltaSparkSessionExtension",
        "spark.sql.catalog.spark_catalog": "org.apache.spark.sql.delta.catalog.DeltaCatalog",
    }
    for k, v in {
        **({} if app["mode"] == "prove" else delta),
        "spark.sql.session.timeZone": "UTC",
        "spark.sql.ansi.enabled": "true",
        "spark.sql.caseSensitive": "false",
        "spark.sql.decimalOperations.allowPrecisionLoss": "false",
        "spark.sql.parser.escapedStringLiterals": "false",
        **app.get("conf", {}),
    }.items():
        builder = builder.config(k, v)
    spark = builder.getOrCreate()
    spark.sparkContext.setLogLevel("ERROR")
    register(spark)
    return spark


def main():
    with open(sys.argv[1], encoding="utf-8") as f:
        app = json.load(f)
    spark = session(app)
    code = 0
    try:
        result = {"prove": prove, "batch": batch}[app["mode"]](spark, app) or {}
        if result.get("failed_files"):
            code = 1
    except DataError as e:
        result, code = {"error": str(e)}, 3
    except Conflict as e:
        result, code = {"error": str(e)}, 5
    finally:
        spark.stop()
    if app["mode"] != "prove":
        print("cauce: " + json.dumps(result), flush=True)
    sys.exit(code)


if __name__ == "__main__":
    main()
