#!/usr/bin/env python3
"""Cauce on Apache Spark: runs what `cauce spark render` wrote.

    spark-submit … driver.py APP.json

APP.json holds a compiled lake file: every expression of it stands there as Spark SQL. This file brings what SQL lacks:
exact readings of texts (the same as those of the embedded engine, docs/expressions.md), readers that split files and
messages exactly, progress in the table (docs/spark.md), and the merge.
"""

import datetime
import decimal
import fractions
import hashlib
import json
import math
import os
import re
import struct
import sys
import time
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
        size = m[4].lstrip("+-").lstrip("0")
        exp = min(int(size or "0"), 1000000) if len(size) < 9 else 1000000  # beyond every type; only zero survives it
        if m[4][0] == "-":
            exp = -exp
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
    one that they show twice with the offset of the first pass."""
    if zone in ("", "UTC"):
        return seconds
    before = zone_offset(zone, seconds - 86400)  # no zone is that far from UTC
    after = zone_offset(zone, seconds - before)
    if after != before and zone_offset(zone, seconds - after) == after:
        return seconds - after  # the change lies before
    return seconds - before


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
    start, count = (max(-0xFFFFFFFF, min(x, 0xFFFFFFFF)) for x in (start, count))
    first = start - 1 if start > 0 else len(s) + start if start < 0 else -1
    return s[max(0, first) : max(0, first + count)] if count > 0 else ""


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
    if digits < -30:
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


def compare(a, b):
    """Less, equal or greater: -1, 0, 1. Of decimals as Spark writes them."""
    x, y = decimal.Decimal(a), decimal.Decimal(b)
    return (x > y) - (x < y)


def mod(a, b):
    """The remainder of decimals, with the sign of the first. None: of a division by zero."""
    x, y = decimal.Decimal(a), decimal.Decimal(b)
    return f"{decimal.Context(prec=200).remainder(x, y):f}" if y else None


# Name -> function and SQL type of its value. A null argument gives null; each function sees values only.
FUNCTIONS = {
    "cauce_long": (to_long, "bigint"),
    "cauce_double": (to_double, "double"),
    "cauce_float": (to_float, "double"),
    "cauce_date": (to_date, "int"),
    "cauce_decimal": (to_decimal, "string"),
    "cauce_compare": (compare, "int"),
    "cauce_mod": (mod, "string"),
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


