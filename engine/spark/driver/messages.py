# --- messages ---------------------------------------------------------------------------------------------------------


class JSONError(Exception):
    """A message that is no JSON object."""


def go_char(byte):
    """A byte as the embedded engine shows a character (Go's %q)."""
    c = chr(byte)
    if c == "'":
        return "'\\''"
    return "'" + ('"' if c == '"' else quote(c)[1:-1]) + "'"


class JSONScanner:
    """Picks the wanted fields out of JSON objects, each as text, exactly as the embedded engine does: texts unescaped,
    numbers, true and false as written, objects and arrays as their JSON text, null and what is missing as null. Names are
    case-exact; a.b reaches into objects, unless a member is called "a.b" itself. Of a name that occurs twice the last one
    counts. What Python's own parser reads otherwise, or refuses, is read here byte by byte."""

    DEPTH_MAX = 1000
    SPACE = re.compile(rb"[ \t\n\r]*")
    PLAIN = re.compile(rb'[^"\\\x00-\x1f]*')
    NUMBER = re.compile(rb"-?[0-9]*")

    def __init__(self, fields, keep, unknown):
        self.fields, self.keep = fields, keep
        self.root = [-1, {}]
        self.dotted = False
        for i, f in enumerate(fields):
            self.child(self.root, f)[0] = i
            parts = f.split(".")
            if len(parts) > 1 and "." in f[1:-1]:
                self.dotted = True
                n = self.root
                for p in parts:
                    n = self.child(n, p)
                n[0] = i
        self.fast = not self.dotted and not keep
        self.wants_unknown = unknown or keep
        # Python's own parser, with numbers as they are written, and whatever it is more generous with refused.
        self.decoder = json.JSONDecoder(parse_float=str, parse_int=str, parse_constant=self.refuse)

    @staticmethod
    def refuse(name):
        raise ValueError(name)

    @staticmethod
    def child(n, name):
        return n[1].setdefault(name, [-1, {}])

    def record(self, value):
        """(values, name of the first member that nothing wants or, with keep, all of them as JSON); JSONError."""
        if not value:
            raise JSONError("no JSON object: the record is empty")
        try:
            t = value.decode("utf-8")
        except UnicodeDecodeError:
            raise JSONError("no JSON object: the record is no valid UTF-8") from None
        if self.fast and "\\u" not in t and t.count("[") + t.count("{") < 500:
            try:
                d = self.decoder.decode(t)
                if isinstance(d, dict):
                    values = [d.get(f) for f in self.fields]
                    if not any(isinstance(v, (dict, list)) for v in values):
                        values = [("true" if v else "false") if isinstance(v, bool) else v for v in values]
                        unknown = next((n for n in d if n and n not in self.root[1]), None) if self.wants_unknown else None
                        return values, unknown
            except (ValueError, RecursionError):
                pass
        return self.exact(value)

    def exact(self, value):
        self.s, self.i = value, 0
        self.values, self.unknown, self.rest = [None] * len(self.fields), None, {}
        self.own = set()  # fields with whose whole name there is a member, null or not: none that is reached into counts beside it
        self.space()
        if self.at(0x7B):
            self.value(self.root, 0)
        else:
            self.value(None, 0)
            raise JSONError("no JSON object: the record is another kind of value")
        self.space()
        if self.i != len(self.s):
            self.fail("something follows the object")
        if self.keep and self.rest:
            self.unknown = "{" + ",".join(json_text(n) + ":" + self.rest[n] for n in sorted(self.rest, key=lambda n: n.encode("utf-8"))) + "}"
        return self.values, self.unknown

    def fail(self, what):
        raise JSONError(f"no valid JSON: {what} at byte {self.i}")

    def space(self):
        self.i = self.SPACE.match(self.s, self.i).end()

    def at(self, byte):
        return self.i < len(self.s) and self.s[self.i] == byte

    def value(self, n, depth):
        if depth > self.DEPTH_MAX:
            self.fail("too deep nesting")
        self.space()
        if self.i == len(self.s):
            self.fail("unexpected end")
        start, c, text = self.i, self.s[self.i], None
        if c == 0x7B:
            self.object(n, depth)
        elif c == 0x5B:
            self.array(depth)
        elif c == 0x22:
            text = self.text(n is not None and n[0] >= 0)
        elif c == 0x2D or 0x30 <= c <= 0x39:
            self.number()
        elif self.s.startswith(b"true", self.i):
            self.i += 4
        elif self.s.startswith(b"false", self.i):
            self.i += 5
        elif self.s.startswith(b"null", self.i):
            self.i += 4
            self.put(n, None)
            return
        else:
            self.fail("unexpected " + go_char(c))
        if n is not None and n[0] >= 0:
            self.put(n, self.s[start : self.i].decode("utf-8") if text is None else text)

    def put(self, n, text):
        if n is None or n[0] < 0:
            return
        if self.root[1].get(self.fields[n[0]]) is n:
            self.own.add(n[0])
        elif n[0] in self.own:
            return
        self.values[n[0]] = text

    def object(self, n, depth):
        self.i += 1
        self.space()
        if self.at(0x7D):
            self.i += 1
            return
        while True:
            self.space()
            if not self.at(0x22):
                self.fail("a member's name is expected")
            name = self.text(True)
            self.space()
            if not self.at(0x3A):
                self.fail("a colon is expected")
            self.i += 1
            child = None
            if n is not None:
                child = n[1].get(name)
                if child is None and n is self.root and self.unknown is None and not self.keep and name:
                    self.unknown = name
                if child is not None:
                    self.forget(child)
            self.space()
            start = self.i
            self.value(child, depth + 1)
            if self.keep and child is None and n is self.root:
                if self.s[start : self.i] == b"null":
                    self.rest.pop(name, None)
                else:
                    self.rest[name] = self.s[start : self.i].decode("utf-8")
            self.space()
            if self.i == len(self.s):
                self.fail("unexpected end")
            if self.at(0x2C):
                self.i += 1
            elif self.at(0x7D):
                self.i += 1
                return
            else:
                self.fail("a comma or } is expected")

    def forget(self, n):
        """Drops what an earlier member of the same name gave."""
        for c in n[1].values():
            if c[0] >= 0 and c[0] not in self.own:
                self.values[c[0]] = None
            self.forget(c)

    def array(self, depth):
        self.i += 1
        self.space()
        if self.at(0x5D):
            self.i += 1
            return
        while True:
            self.value(None, depth + 1)
            self.space()
            if self.i == len(self.s):
                self.fail("unexpected end")
            if self.at(0x2C):
                self.i += 1
            elif self.at(0x5D):
                self.i += 1
                return
            else:
                self.fail("a comma or ] is expected")

    def digits(self):
        start = self.i
        while self.i < len(self.s) and 0x30 <= self.s[self.i] <= 0x39:
            self.i += 1
        return self.i > start

    def number(self):
        if self.at(0x2D):
            self.i += 1
        zero, start = self.at(0x30), self.i
        if not self.digits() or zero and self.i > start + 1:
            self.fail("bad number")
        if self.at(0x2E):
            self.i += 1
            if not self.digits():
                self.fail("bad number")
        if self.at(0x65) or self.at(0x45):
            self.i += 1
            if self.at(0x2B) or self.at(0x2D):
                self.i += 1
            if not self.digits():
                self.fail("bad number")

    def text(self, wanted):
        self.i += 1
        start, escaped, s = self.i, False, self.s
        while True:
            self.i = self.PLAIN.match(s, self.i).end()
            if self.i == len(s):
                self.fail("unexpected end")
            c = s[self.i]
            if c == 0x22:
                t = s[start : self.i]
                self.i += 1
                return unescape(t) if escaped and wanted else t.decode("utf-8")
            if c != 0x5C:
                self.fail("a control character in a text")
            escaped = True
            self.i += 1
            if self.i == len(s):
                self.fail("unexpected end")
            if s[self.i] in b'"\\/bfnrt':
                self.i += 1
            elif s[self.i] == 0x75:
                if not HEX4.match(s, self.i + 1):
                    self.fail("bad escape")
                self.i += 5
            else:
                self.fail("bad escape")


HEX4 = re.compile(rb"[0-9a-fA-F]{4}")
ESCAPE = re.compile(r"\\(?:u([0-9a-fA-F]{4})(?:\\u([0-9a-fA-F]{4}))?|(.))", re.DOTALL)
SHORT = {"b": "\b", "f": "\f", "n": "\n", "r": "\r", "t": "\t"}


def unescape(t):
    """Undoes the escapes of a text; a lone surrogate becomes U+FFFD."""

    out, at = [], 0
    s = t.decode("utf-8")
    while (m := ESCAPE.search(s, at)) is not None:
        out.append(s[at : m.start()])
        at = m.end()
        if m[3]:
            out.append(SHORT.get(m[3], m[3]))
            continue
        high = int(m[1], 16)
        if m[2]:
            low = int(m[2], 16)
            if 0xD800 <= high < 0xDC00 and 0xDC00 <= low < 0xE000:
                out.append(chr(0x10000 + ((high - 0xD800) << 10) + (low - 0xDC00)))
                continue
            at = m.start() + 6  # the second may begin a pair of its own
        out.append("\ufffd" if 0xD800 <= high < 0xE000 else chr(high))
    return "".join(out) + s[at:]


INVALID = re.compile("[\udc80-\udcff]+")


def message_text(value):
    """(a message as text, its exact bytes where the text cannot be them)"""
    if value is None:
        return "", None
    raw = value[:RAW_MAX]
    try:
        if raw:
            return raw.decode("utf-8"), None
        return "", b""
    except UnicodeDecodeError:
        t = INVALID.sub("\ufffd", raw.decode("utf-8", "surrogateescape")).encode("utf-8")
        return cut(t).decode("utf-8", "ignore"), raw


def tombstone(spec, key, ms):
    """The JSON object that stands for a message without value: what its key and its time say."""
    if key is None:
        raise JSONError("the message has neither value nor key")
    members = [json_text(spec["time"]) + f":{ms}"] if spec.get("time") else []
    if spec.get("key"):
        try:
            members.append(json_text(spec["key"]) + ":" + json_text(key.decode("utf-8")))
        except UnicodeDecodeError:
            raise JSONError("the message has no value, and its key is no valid UTF-8") from None
        return ("{" + ",".join(members) + "}").encode("utf-8")
    try:
        said = json.loads(key.decode("utf-8", "replace"), parse_constant=JSONScanner.refuse)
    except (ValueError, RecursionError):
        said = None
    if not isinstance(said, dict):
        raise JSONError("the message has no value, and its key is no JSON object; kafka.tombstones.key names the raw field for a key that is plain text")
    # Of a name that occurs twice the last one counts: what the key itself says.
    rest = key.strip(b" \t\r\n")[1:]
    return ("{" + ",".join(members) + ("," if members and said else "")).encode("utf-8") + rest


def message_reader(source, program, schema, origin, renewals):
    """Makes records of messages, where they are; each comes as (key, value, partition, offset, time in ms). renewals is how often
    a partition has given its offsets to other messages, where it has."""
    raw_fields = program["raw_fields"]
    flush = flusher(schema)
    topic, tombstones = source["kafka"]["topic"], source["kafka"].get("tombstones")

    def run(batches):
        sys.setrecursionlimit(5000)  # JSONScanner.DEPTH_MAX levels, each of two calls
        # Fields that no message has: all members that nothing else wants, and whether the message is a deletion.
        own = [(i, f) for i, f in enumerate(raw_fields) if f.startswith("\0")]
        scan = JSONScanner([f for f in raw_fields if not f.startswith("\0")], "\0unknown" in raw_fields, program["uses_unknown"])
        if "\0tombstone" in raw_fields:
            scan.child(scan.root, "\0tombstone")  # a name that no member can take
        nothing = (None,) * len(raw_fields)
        for b in batches:
            rows = []
            for key, value, partition, offset, ms in zip(*(c.to_pylist() for c in b.columns)):
                raw, exact = message_text(value)
                meta = (None, None, topic, partition, offset, raw, exact, key, len(value or b""), None, ms)
                life = f"~{renewals[partition]}" if partition in renewals else ""
                common = (meta, offset, f"{origin}:{topic}/{partition}{life}", 0, None, None, None)
                gone = value is None and tombstones is not None
                try:
                    values, unknown = scan.record(tombstone(tombstones, key, ms) if gone else value)
                except JSONError as e:
                    rows.append((*nothing, *common, None, str(e)))
                    continue
                if gone:
                    unknown = None  # what else the key says is nobody's
                if own:
                    values = list(values)
                    for i, f in own:
                        values.insert(i, unknown if f == "\0unknown" else "true" if gone else None)
                rows.append((*values, *common, unknown if program["uses_unknown"] else None, None))
            if rows:
                yield flush(rows)

    return run
