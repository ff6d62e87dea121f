package pipeline

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/url"
	"os"
	"path"
	"path/filepath"
	"regexp"
	"slices"
	"sort"
	"strconv"
	"strings"
	"time"

	"golang.org/x/text/encoding/htmlindex"

	"github.com/cauce-data/cauce/delta"
)

// LoadOptions are what Load needs beside the file.
type LoadOptions struct {
	// Parser parses SQL expressions; it must be set.
	Parser Parser
	// Root overrides the storage root, if not "": a URL, or a path relative to the working directory.
	Root string
	// Env looks up environment variables; nil means os.LookupEnv.
	Env func(string) (string, bool)
}

// Load reads a lake file and compiles its plans. Where the file is wrong the error is Diagnostics with everything that
// is wrong; any other error means that it could not be read.
func Load(path string, o LoadOptions) (*Lake, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	if info, err := f.Stat(); err != nil {
		return nil, err
	} else if !info.Mode().IsRegular() {
		return nil, fmt.Errorf("%s: not a regular file", path)
	} else if info.Size() > fileBytesMax {
		return nil, Diagnostics{{File: path, Msg: fmt.Sprintf("the lake file has %d bytes; at most %d are read", info.Size(), fileBytesMax)}}
	}
	var buf bytes.Buffer
	if _, err := buf.ReadFrom(f); err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	return Parse(path, buf.Bytes(), o)
}

// Parse is Load for a text that has been read already; path is where it belongs.
func Parse(path string, text []byte, o LoadOptions) (*Lake, error) {
	if o.Parser == nil {
		return nil, errors.New("BUG: a lake file cannot be loaded without a parser")
	}
	abs, err := filepath.Abs(path)
	if err != nil {
		return nil, err
	}
	env := o.Env
	if env == nil {
		env = os.LookupEnv
	}
	b := &builder{
		r:           &reader{file: path, dir: filepath.Dir(abs), env: env},
		parser:      o.Parser,
		root:        o.Root,
		lake:        &Lake{File: abs, Dir: filepath.Dir(abs), plans: map[string]*Plan{}},
		badFilename: map[string]bool{},
		places:      map[string]pos{},
	}
	if node := b.r.parse(text); node != nil {
		if v := b.r.read(node, lakeShape, "the lake file", 0); v != nil {
			b.build(v)
		}
	}
	if len(b.r.diags) > 0 {
		return nil, b.r.redact(slices.Compact(inOrder(b.r.diags)))
	}
	b.lake.secrets = b.r.secrets
	b.lake.Warnings = b.r.redact(inOrder(b.lake.Warnings))
	return b.lake, nil
}

func inOrder(d Diagnostics) Diagnostics {
	sort.SliceStable(d, func(i, j int) bool {
		if d[i].Line != d[j].Line {
			return d[i].Line < d[j].Line
		}
		return d[i].Column < d[j].Column
	})
	return d
}

// redact hides resolved references in findings: the SQL parser and others quote what they were given.
func (r *reader) redact(d Diagnostics) Diagnostics {
	// The longest first, so that no value is cut in two by another that is part of it.
	sort.SliceStable(r.secrets, func(i, j int) bool { return len(r.secrets[i].value) > len(r.secrets[j].value) })
	l := Lake{secrets: r.secrets}
	for i := range d {
		d[i].Msg, d[i].Hint = l.Redact(d[i].Msg), l.Redact(d[i].Hint)
	}
	return d
}

// Plan gives the compiled plan of a source.
func (l *Lake) Plan(source string) (*Plan, error) {
	if p := l.plans[source]; p != nil {
		return p, nil
	}
	var all []string
	for _, s := range l.Sources {
		all = append(all, s.Name)
	}
	err := fmt.Errorf("%s has no source %q", l.File, source)
	if hint := suggest(source, all); hint != "" {
		err = fmt.Errorf("%w; %s", err, hint)
	}
	return nil, err
}

// builder makes a Lake of checked values.
type builder struct {
	r      *reader
	parser Parser
	root   string
	lake   *Lake
	// badFilename marks sources whose from_filename has been reported already.
	badFilename map[string]bool
	// compiled holds what all sources of a table share.
	compiled map[*Table]*compiledTable
	// places tells where tables ("table/name") and sources ("source/name") are declared.
	places map[string]pos
}

type compiledTable struct {
	steps  []CompiledStep
	expect []CompiledExpectation
	// set are the columns that the steps set before any step reads them.
	set map[string]bool
	ok  bool
}

func (b *builder) warnf(at pos, hint, format string, args ...any) {
	b.lake.Warnings = append(b.lake.Warnings, Diagnostic{File: b.r.file, Line: at.line, Column: at.column, Msg: fmt.Sprintf(format, args...), Hint: hint})
}

func (b *builder) build(v *value) {
	b.storage(v.get("storage"))
	tables := v.get("tables")
	if tables != nil && len(tables.keys) == 0 {
		b.r.errorf(tables.at, "", "tables is empty: a lake has at least one table")
	}
	type declared struct {
		t *Table
		v *value
	}
	var decl []declared
	if tables != nil {
		for _, e := range tables.keys {
			t := b.table(e)
			for _, o := range b.lake.Tables {
				switch {
				case strings.EqualFold(o.Name, t.Name):
					b.r.errorf(e.at, "names ignore case", "table %s is declared twice", t.Name)
				case shareFolder(o.Location, t.Location):
					b.r.errorf(e.at, "give one of them another location", "tables %s and %s share the folder %s", o.Name, t.Name, t.Location)
				}
			}
			b.lake.Tables = append(b.lake.Tables, t)
			b.places["table/"+t.Name] = e.at
			decl = append(decl, declared{t, e.v})
		}
	}
	type declaredSource struct {
		s *Source
		e entry
	}
	var sources []declaredSource
	if s := v.get("sources"); s != nil {
		for _, e := range s.keys {
			src := b.source(e)
			if src.Table != "" {
				if t := b.lake.Table(src.Table); t != nil {
					src.Table = t.Name
					t.Deletes = t.Deletes || e.v.get("delete") != nil || src.Kafka != nil && src.Kafka.Tombstones != nil
					if _, has := t.Column(ColumnUnknown); src.UnknownFields == UnknownKeep && !has {
						t.Columns = append(t.Columns, Column{Name: ColumnUnknown, Type: delta.Primitive("string"), Comment: "raw fields that nothing refers to"})
					}
				} else {
					tv := e.v.get("table")
					b.r.errorf(tv.at, suggest(src.Table, b.tableNames()), "unknown table %s", strconv.Quote(src.Table))
					src.Table = ""
				}
			}
			b.lake.Sources = append(b.lake.Sources, src)
			b.places["source/"+src.Name] = e.at
			sources = append(sources, declaredSource{src, e})
		}
	}
	b.compiled = map[*Table]*compiledTable{}
	for _, d := range decl {
		b.compiled[d.t] = b.compileTable(d.t, d.v)
		b.checkNotNull(d.t, d.v)
		b.checkRetention(d.t, d.v)
	}
	for _, d := range sources {
		b.compileSource(d.s, d.e)
	}
	for _, d := range decl {
		b.checkFeeds(d.t, d.v)
	}
	b.checkTopics(v.get("sources"))
	b.settings(v)
	b.shares(v.get("shares"))
	b.views(v)
	b.serve(v)
}

func (b *builder) tableNames() []string {
	var n []string
	for _, t := range b.lake.Tables {
		n = append(n, t.Name)
	}
	return n
}

// storage resolves the root of the lake to an absolute URL.
func (b *builder) storage(v *value) {
	text, dir := v.str(""), b.lake.Dir
	if b.root != "" {
		text, dir = b.root, ""
	}
	if text == "" {
		return // reported as missing
	}
	u, err := storageURL(text, dir)
	if err != nil {
		if b.root != "" {
			b.r.errorf(pos{}, "", "storage root %s: %v", strconv.Quote(text), err)
		} else {
			b.r.errorf(v.at, "it can be a path, such as file:./data, or a URL s3://bucket/folder or gs://bucket/folder", "storage: %s: %s", strconv.Quote(clip(v.shown)), v.why(err))
		}
		return
	}
	b.lake.Storage = u
}

func storageURL(text, dir string) (string, error) {
	scheme, rest, ok := strings.Cut(text, ":")
	if ok && len(scheme) > 1 && !strings.ContainsAny(scheme, "./\\") {
		switch scheme {
		case "s3", "gs":
			u, err := url.Parse(text)
			if err != nil || u.Host == "" {
				return "", errors.New("a bucket is missing")
			}
			return strings.TrimRight(text, "/"), nil
		case "file":
			if after, ok := strings.CutPrefix(rest, "//"); ok {
				if !strings.HasPrefix(after, "/") {
					return "", errors.New("a file URL has three slashes before an absolute path")
				}
				rest = after
			}
		default:
			return "", fmt.Errorf("the scheme %s: is not known", scheme)
		}
	} else {
		rest = text
	}
	if rest == "" {
		return "", errors.New("a path is missing")
	}
	if !filepath.IsAbs(rest) {
		if dir == "" {
			var err error
			if dir, err = os.Getwd(); err != nil {
				return "", err
			}
		}
		rest = filepath.Join(dir, rest)
	}
	return (&url.URL{Scheme: "file", Path: filepath.ToSlash(filepath.Clean(rest))}).String(), nil
}

// shareFolder tells whether two folders are one, or one lies in the other.
func shareFolder(a, b string) bool {
	return strings.HasPrefix(a+"/", b+"/") || strings.HasPrefix(b+"/", a+"/")
}

var identifier = regexp.MustCompile(`^[A-Za-z][A-Za-z0-9_]*$`)

func (b *builder) name(e entry, what string) {
	if !identifier.MatchString(e.name) || len(e.name) > 128 {
		b.r.errorf(e.at, "names are letters, digits and '_', beginning with a letter", "%s name %s", what, strconv.Quote(clip(e.name)))
	}
}

func (b *builder) table(e entry) *Table {
	v := e.v
	b.name(e, "table")
	t := &Table{
		Name: e.name, Location: "processed/" + strings.ReplaceAll(e.name, "_", "-"), Comment: v.get("comment").str(""),
		Evolve:          v.get("evolve").str(defaultOf("tables.*.evolve")),
		Timezone:        b.timezone(v.get("timezone"), "timezone"),
		DeletionVectors: v.get("deletion_vectors").bool(true),
		Compression:     v.get("compression").str(defaultOf("tables.*.compression")),
	}
	if l := v.get("location"); l != nil {
		t.Location = strings.Trim(l.text, "/")
		clean := path.Clean(t.Location)
		if clean != t.Location || clean == "." || strings.HasPrefix(clean, "..") || strings.ContainsAny(clean, "\\:*?") {
			b.r.errorf(l.at, "it must be a folder below the storage root, such as processed/events", "location %s", strconv.Quote(clip(l.shown)))
		}
	}
	// Neither in them nor above them: VACUUM of a table deletes what lies in its folder and is not its own.
	if slices.ContainsFunc([]string{"raw", "processed/quarantine", "processed/_progress"}, func(own string) bool { return shareFolder(t.Location, own) }) {
		at := e.at
		if l := v.get("location"); l != nil {
			at = l.at
		}
		b.r.errorf(at, "choose another name or location", "table %s: the folder %s belongs to the lake itself", t.Name, t.Location)
	}
	if cols := v.get("columns"); cols != nil {
		for _, c := range cols.keys {
			b.column(t, c)
		}
		if len(cols.keys) == 0 && len(b.r.diags) == 0 {
			b.r.errorf(cols.at, "", "table %s has no columns", t.Name)
		}
	}
	t.Key = b.columns(t, v.get("key"), "key")
	t.Sequence = b.columns(t, v.get("sequence"), "sequence")
	t.PartitionBy = b.columns(t, v.get("partition_by"), "partition_by")
	t.ClusterBy = b.columns(t, v.get("cluster_by"), "cluster_by")
	t.Ledger = b.ledger(t, v.get("ledger"))
	if r := v.get("tombstone_retention"); r != nil {
		t.TombstoneRetention = time.Duration(r.num)
	}
	for _, k := range t.Key {
		for i := range t.Columns {
			// A null equals nothing, not even itself: a row without its key could never be found again.
			if t.Columns[i].Name == k {
				t.Columns[i].NotNull = true
			}
		}
	}
	if p := v.get("partition_by"); p != nil && len(t.Columns) > 0 && len(t.PartitionBy) >= len(t.Columns) {
		b.r.errorf(p.at, "", "partition_by names every column: files would hold no data")
	}
	return t
}

func (b *builder) column(t *Table, e entry) {
	c := Column{Name: e.name, NotNull: e.v.get("not_null").bool(false), Comment: e.v.get("comment").str("")}
	switch {
	case strings.HasPrefix(e.name, "_"):
		b.r.errorf(e.at, "", "column name %s: names beginning with '_' are reserved", strconv.Quote(clip(e.name)))
	case !identifier.MatchString(e.name) || len(e.name) > 128:
		b.r.errorf(e.at, "names are letters, digits and '_', beginning with a letter", "column name %s", strconv.Quote(clip(e.name)))
	}
	if o, dup := t.Column(c.Name); dup {
		b.r.errorf(e.at, "names ignore case", "column %s is declared twice: %s", c.Name, o.Name)
		return
	}
	tv := e.v.get("type")
	if tv == nil {
		c.Type = delta.Primitive("string") // reported already; keep the column known
	} else if typ, err := delta.ParseType(tv.text); err != nil {
		b.r.errorf(tv.at, typeHint(tv.text), "column %s: unknown type %s", c.Name, strconv.Quote(clip(tv.shown)))
		c.Type = delta.Primitive("void")
	} else if why, hint := unusable(typ); why != "" {
		b.r.errorf(tv.at, hint, "column %s: %s", c.Name, why)
		c.Type = typ
	} else {
		c.Type = typ
		if m := bounded.FindStringSubmatch(tv.text); m != nil {
			b.warnf(tv.at, "say it with expect, such as length("+c.Name+") <= "+m[1], "column %s: %s is a STRING of any length", c.Name, strings.ToUpper(clip(tv.shown)))
		}
		if strings.EqualFold(c.Name, ColumnIngestedAt) && typeOf(typ) != typeTimestamp {
			b.r.errorf(tv.at, "it must be TIMESTAMP", "column %s holds the time of the run; its type is %s", c.Name, strings.ToUpper(typ.String()))
		}
	}
	t.Columns = append(t.Columns, c)
}

// bounded matches types of texts whose length Delta does not know.
var bounded = regexp.MustCompile(`(?i)^\s*(?:var)?char\s*\(\s*(\d+)`)

// unusable says what of a type no table of ours can have; "" if it can.
func unusable(t delta.Type) (why, hint string) {
	parts := []delta.Type{}
	switch t := t.(type) {
	case delta.Primitive:
		if t == "void" || t == "variant" {
			return fmt.Sprintf("the type %s cannot be used", strings.ToUpper(string(t))), typeShape.want()
		}
	case *delta.Struct:
		if len(t.Fields) == 0 {
			return "a STRUCT without fields cannot be used", "name its fields, such as STRUCT<a: INT>"
		}
		for _, f := range t.Fields {
			if f.Name == "" || strings.ContainsAny(f.Name, " ,;{}()\n\t=") {
				return fmt.Sprintf("a field cannot have the name %s", strconv.Quote(clip(f.Name))), "names of fields are not empty and have no blank, line break or any of ,;{}()="
			}
			parts = append(parts, f.Type)
		}
	case *delta.Array:
		parts = append(parts, t.Element)
	case *delta.Map:
		parts = append(parts, t.Key, t.Value)
	}
	for _, p := range parts {
		if why, hint := unusable(p); why != "" {
			return why, hint
		}
	}
	return "", ""
}

// columns resolves a list of column names.
func (b *builder) columns(t *Table, v *value, what string) []string {
	if v == nil {
		return nil
	}
	var out []string
	for _, i := range v.items {
		c, ok := t.Column(i.text)
		if !ok {
			if len(t.Columns) == 0 {
				continue // what is wrong with the columns is reported
			}
			var all []string
			for _, c := range t.Columns {
				all = append(all, c.Name)
			}
			b.r.errorf(i.at, suggest(i.text, all), "%s: unknown column %s of table %s", what, strconv.Quote(clip(i.shown)), t.Name)
			continue
		}
		if slices.Contains(out, c.Name) {
			b.r.errorf(i.at, "", "%s names column %s twice", what, c.Name)
			continue
		}
		if k := typeOf(c.Type); k == typeOther && c.Type != delta.Primitive("void") {
			b.r.errorf(i.at, "", "%s: column %s of type %s has no order", what, c.Name, strings.ToUpper(c.Type.String()))
		} else if k == typeFloat && (what == "key" || what == "partition_by") {
			b.r.errorf(i.at, "use DECIMAL(p,s), an integer or STRING", "%s: column %s is floating-point; equal values may differ in their last bit", what, c.Name)
		}
		if strings.EqualFold(c.Name, ColumnIngestedAt) && what != "cluster_by" {
			b.r.errorf(i.at, "", "%s: column %s is the time of the run and differs each time a row is read", what, c.Name)
		}
		out = append(out, c.Name)
	}
	return out
}

func (b *builder) timezone(v *value, what string) *time.Location {
	name := v.str("UTC")
	if strings.EqualFold(name, "local") {
		b.r.errorf(v.at, "name it, such as Europe/Madrid", "%s: the local time zone would make the table depend on the machine", what)
		return time.UTC
	}
	l, err := time.LoadLocation(name)
	if err != nil {
		hint := "names are those of the IANA database, such as UTC or Europe/Madrid"
		if n := nearest(name, commonZones); n != "" {
			hint = "did you mean " + strconv.Quote(n) + "?"
		}
		b.r.errorf(v.at, hint, "%s: unknown time zone %s", what, strconv.Quote(clip(v.shown)))
		return time.UTC
	}
	return l
}

var commonZones = []string{"UTC", "Europe/Madrid", "Europe/London", "Europe/Berlin", "Europe/Paris", "Europe/Rome", "Europe/Lisbon", "Europe/Zurich", "Europe/Amsterdam", "Europe/Moscow", "Europe/Istanbul",
	"America/New_York", "America/Chicago", "America/Denver", "America/Los_Angeles", "America/Mexico_City", "America/Bogota", "America/Lima", "America/Santiago", "America/Sao_Paulo", "America/Argentina/Buenos_Aires", "America/Toronto",
	"Asia/Tokyo", "Asia/Shanghai", "Asia/Hong_Kong", "Asia/Singapore", "Asia/Kolkata", "Asia/Dubai", "Asia/Seoul", "Australia/Sydney", "Africa/Johannesburg", "Africa/Lagos", "Africa/Cairo"}

func (b *builder) source(e entry) *Source {
	v := e.v
	if !sourceName.MatchString(e.name) || len(e.name) > 100 {
		b.r.errorf(e.at, "names are letters, digits, '_' and '-', beginning with a letter", "source name %s", strconv.Quote(clip(e.name)))
	}
	s := &Source{
		Name: e.name, Table: v.get("table").str(""), Kind: v.get("kind").str(""), Location: v.get("location").strs(), Topic: v.get("topic").str(""),
		Rank: int32(v.get("rank").int(0)), OnReissue: v.get("on_reissue").str(ReissueMerge), UnknownFields: v.get("unknown_fields").str(UnknownIgnore),
		Filter: v.get("filter").str(""), Delete: v.get("delete").str(""),
	}
	for _, o := range b.lake.Sources {
		if strings.EqualFold(o.Name, s.Name) {
			b.r.errorf(e.at, "names of sources become names of folders, which may ignore case", "source %s is declared twice", s.Name)
		}
	}
	if f := v.get("fields"); f != nil {
		for _, m := range f.keys {
			s.Fields = append(s.Fields, Mapping{m.name, m.v.str("")})
		}
	}
	if s.Kind == "" {
		return s // reported as missing or unknown
	}
	refuse := func(keys ...string) {
		for _, k := range keys {
			for _, x := range v.keys {
				if x.name == k {
					b.r.errorf(x.at, "", "%s has no meaning in a source of kind %s", k, s.Kind)
				}
			}
		}
	}
	if s.Streaming() {
		refuse("location", "from_filename", "generation", "csv", "on_reissue")
		s.Format = v.get("format").str(FormatJSON)
		switch {
		case s.Format == FormatJSON:
		case s.Format != FormatAvro:
			b.r.errorf(v.get("format").at, "write json, or avro for a topic of Kafka with a schema registry", "format %s: streams carry JSON or Avro", s.Format)
		case s.Kind != KindKafka || v.get("kafka").get("registry") == nil:
			b.r.errorf(v.get("format").at, `give kafka: {registry: {url: "http://localhost:8081"}}`, "format avro: source %s has no schema registry, which tells what the bytes of a message are", s.Name)
		}
		if t := v.get("topic"); t == nil {
			b.r.errorf(e.at, "it must be a text, such as crypto_trades", "source %s has no topic", s.Name)
		} else if !topicName.MatchString(t.text) || len(t.text) > 249 {
			b.r.errorf(t.at, "names are letters, digits, '.', '_' and '-'", "topic %s", strconv.Quote(clip(t.shown)))
		}
	} else {
		refuse("topic", "produce", "repair", "archive")
		s.Format = v.get("format").str(FormatCSV)
		b.locations(s, e)
		if c := v.get("csv"); c != nil && s.Format != FormatCSV {
			b.r.errorf(c.at, "", "csv has no meaning for files of format %s", s.Format)
		}
		s.CSV = b.csv(v.get("csv"))
		if f := v.get("from_filename"); f != nil {
			re, err := regexp.Compile(f.text)
			switch {
			case err != nil:
				b.r.errorf(f.at, "", "from_filename: %s is no regular expression: %s", strconv.Quote(clip(f.shown)), f.why(err))
				b.badFilename[s.Name] = true
			case !slices.ContainsFunc(re.SubexpNames(), func(n string) bool { return n != "" }):
				b.r.errorf(f.at, "write (?P<name>…)", "from_filename: %s has no named group", strconv.Quote(clip(f.shown)))
				b.badFilename[s.Name] = true
			default:
				s.FromFilename = re
			}
		}
	}
	switch k := v.get("kafka"); {
	case s.Kind != KindKafka:
		refuse("kafka")
	case k == nil:
		b.r.errorf(e.at, kafkaShape.like(), "source %s of kind kafka has no kafka block, which names the brokers", s.Name)
	default:
		s.Kafka = b.kafka(k)
	}
	switch p := v.get("pubsub"); {
	case s.Kind != KindPubSub:
		refuse("pubsub")
	case p == nil:
		b.r.errorf(e.at, pubsubShape.like(), "source %s of kind pubsub has no pubsub block, which names project and subscription", s.Name)
	default:
		s.PubSub = b.pubsub(p)
		if t := v.get("topic"); t != nil && !pubsubName.MatchString(t.text) {
			b.r.errorf(t.at, pubsubNameHint, "topic %s", strconv.Quote(clip(t.shown)))
		}
	}
	if g := v.get("generation"); g != nil && !s.Streaming() && !b.badFilename[s.Name] {
		s.Generation = g.text
		switch {
		case s.FromFilename == nil:
			b.r.errorf(g.at, "give it, such as from_filename: '_v(?P<"+g.text+">[0-9]+)'", "generation: source %s has no from_filename", s.Name)
		case s.FromFilename.SubexpIndex(g.text) < 0:
			names := slices.DeleteFunc(slices.Clone(s.FromFilename.SubexpNames()), func(n string) bool { return n == "" })
			b.r.errorf(g.at, suggest(g.text, names), "generation: from_filename of source %s has no group %s", s.Name, strconv.Quote(clip(g.shown)))
		}
	}
	if p := v.get("produce"); p != nil && s.Streaming() {
		s.Produce = b.produce(p)
	}
	if s.Streaming() {
		s.Repair = b.repair(v.get("repair"), s.Produce)
		s.Archive = v.get("archive").bool(false)
	}
	return s
}

var (
	sourceName = regexp.MustCompile(`^[A-Za-z][A-Za-z0-9_-]*$`)
	topicName  = regexp.MustCompile(`^[A-Za-z0-9._-]+$`)
)

// besideLake gives the absolute path of a file of this machine that key names; relative ones begin at the lake file. That
// it is not there is no error: the lake file may be checked on another machine.
func (b *builder) besideLake(v *value, key string) string {
	p := v.str("")
	if p == "" {
		return p
	}
	if !filepath.IsAbs(p) {
		p = filepath.Join(b.lake.Dir, filepath.FromSlash(p))
	}
	if _, err := os.Stat(p); errors.Is(err, fs.ErrNotExist) {
		b.warnf(v.at, "", "%s: there is no file %s", key, strconv.Quote(clip(v.shown)))
	}
	return p
}

func (b *builder) locations(s *Source, e entry) {
	l := e.v.get("location")
	if l == nil {
		b.r.errorf(e.at, `it must be a list of patterns, such as ["raw/batch/*.csv"]`, "source %s has no location", s.Name)
		return
	}
	if len(s.Location) == 0 {
		b.r.errorf(l.at, "", "source %s: location is empty", s.Name)
	}
	for _, i := range l.items {
		switch _, err := path.Match(i.text, "x"); {
		case err != nil:
			b.r.errorf(i.at, "", "location: %s is no pattern: a '[' is not closed", strconv.Quote(clip(i.shown)))
		case strings.HasPrefix(i.text, "/") || strings.Contains(i.text, "://") || path.Clean(i.text) != i.text || strings.HasPrefix(i.text, ".."):
			b.r.errorf(i.at, "it must be relative to the storage root, such as raw/batch/*.csv", "location %s", strconv.Quote(clip(i.shown)))
		default:
			for _, t := range b.lake.Tables {
				if strings.HasPrefix(i.text, t.Location+"/") {
					b.r.errorf(i.at, "", "location %s lies in the folder of table %s", strconv.Quote(clip(i.shown)), t.Name)
				} else if matchKey(i.text, t.dataFile()) {
					b.r.errorf(i.at, "name a folder that holds no tables, such as raw/batch/**", "location %s matches the files of table %s: each run would read what the one before it wrote", strconv.Quote(clip(i.shown)), t.Name)
					break // the other tables say the same
				}
			}
		}
	}
}

// dataFile is the key of a file as tables have them.
func (t *Table) dataFile() string {
	folder := t.Location
	for _, c := range t.PartitionBy {
		folder += "/" + c + "=x"
	}
	return folder + "/part-00000-01234567-89ab-cdef-0123-456789abcdef.c000.snappy.parquet"
}

func (b *builder) csv(v *value) CSV {
	c := CSV{
		Delimiter: ',', Quote: '"', Decimal: '.',
		Header: v.get("header").str(HeaderAuto), Encoding: strings.ToLower(v.get("encoding").str("utf-8")),
		NullValues: v.get("null_values").strs(), Multiline: v.get("multiline").bool(true),
		Columns: v.get("columns").strs(), Optional: v.get("optional").strs(),
	}
	if d := v.get("delimiter"); d != nil {
		c.Delimiter = rune(d.num)
	}
	if q := v.get("quote"); q != nil {
		r := []rune(q.text)
		switch len(r) {
		case 0:
			c.Quote = 0
		case 1:
			c.Quote = r[0]
		default:
			b.r.errorf(q.at, "it must be a single character, or empty", "csv.quote: %s", strconv.Quote(clip(q.shown)))
		}
	}
	if d := v.get("decimal"); d != nil {
		c.Decimal = rune(d.num)
		if c.Decimal != '.' && c.Decimal != ',' {
			b.r.errorf(d.at, `it must be "." or ","`, "csv.decimal: %s", strconv.Quote(clip(d.shown)))
		}
	}
	if c.Quote == c.Delimiter {
		b.r.errorf(v.at, "", "csv: delimiter and quote are the same character %q", c.Quote)
	}
	if en := v.get("encoding"); en != nil {
		enc, err := htmlindex.Get(en.text)
		if err == nil {
			if name, nameErr := htmlindex.Name(enc); nameErr == nil {
				c.Encoding = name
			}
		} else {
			hint := "names are those of the WHATWG encoding standard, such as utf-8, utf-16le, windows-1252 or iso-8859-15"
			if n := nearest(en.text, encodings); n != "" {
				hint = "did you mean " + strconv.Quote(n) + "?"
			}
			b.r.errorf(en.at, hint, "csv.encoding: %s is not known", strconv.Quote(clip(en.shown)))
		}
	}
	for key, list := range map[string][]string{"columns": c.Columns, "optional": c.Optional} {
		for i, n := range list {
			if slices.Contains(list[:i], n) {
				b.r.errorf(v.get(key).items[min(i, len(v.get(key).items)-1)].at, "", "csv.%s names %s twice", key, strconv.Quote(clip(n)))
			}
		}
	}
	if h := v.get("header"); h != nil && c.Header == HeaderFalse && len(c.Columns) == 0 {
		b.r.errorf(h.at, "give csv.columns: [time, price, …]", "csv.header is false and no columns are given: the fields have no names")
	}
	return c
}

var encodings = []string{"utf-8", "utf-16le", "utf-16be", "windows-1252", "windows-1250", "windows-1251", "iso-8859-1", "iso-8859-2", "iso-8859-15", "latin1", "macintosh", "ibm866", "koi8-r", "gbk", "gb18030", "big5", "shift_jis", "euc-jp", "euc-kr"}

// compileTable compiles what all sources of a table share.
func (b *builder) compileTable(t *Table, v *value) *compiledTable {
	ct := &compiledTable{set: map[string]bool{}, ok: true}
	sc := scope{table: t}
	read := map[string]bool{}
	note := func(e Expr) {
		Walk(e, func(e Expr) {
			if n, ok := e.(Name); ok {
				read[n.Name] = true
			}
		})
	}
	if tv := v.get("transform"); tv != nil {
		for i, sv := range tv.items {
			what := fmt.Sprintf("%s.transform[%d]", t.Name, i)
			set, where := sv.get("set"), sv.get("where")
			if (set == nil) == (where == nil) {
				b.r.errorf(sv.at, stepShape.like(), "%s must have either set or where", what)
				ct.ok = false
				continue
			}
			if where != nil {
				t.Transform = append(t.Transform, Step{Where: where.text})
				e, ok := b.condition(exprText{where.text, where, what + ".where"}, sc)
				ct.ok = ct.ok && ok
				note(e)
				ct.steps = append(ct.steps, CompiledStep{Where: e})
				continue
			}
			var step Step
			var cs CompiledStep
			for _, m := range set.keys {
				step.Set = append(step.Set, Mapping{m.name, m.v.str("")})
				a, ok := b.assign(m, exprText{m.v.str(""), m.v, what + ".set." + m.name}, sc, t)
				ct.ok = ct.ok && ok
				if slices.ContainsFunc(cs.Set, func(o Assign) bool { return o.Column == a.Column }) {
					b.r.errorf(m.at, "names ignore case", "%s.set: column %s is set twice", what, a.Column)
				}
				cs.Set = append(cs.Set, a)
			}
			for _, a := range cs.Set {
				note(a.Expr)
			}
			for _, a := range cs.Set {
				if !read[a.Column] {
					ct.set[a.Column] = true
				}
			}
			t.Transform = append(t.Transform, step)
			ct.steps = append(ct.steps, cs)
		}
	}
	if ev := v.get("expect"); ev != nil {
		for i, xv := range ev.items {
			name := xv.get("name").str("")
			what := fmt.Sprintf("%s.expect[%d]", t.Name, i)
			if name != "" {
				what = t.Name + ".expect." + name
				if slices.ContainsFunc(t.Expect, func(o Expectation) bool { return o.Name == name }) {
					b.r.errorf(xv.get("name").at, "", "table %s has two expectations named %s", t.Name, strconv.Quote(name))
				}
				if strings.ContainsAny(name, ":\n\t") || len(name) > 128 {
					b.r.errorf(xv.get("name").at, "names hold no ':' and at most 128 characters", "expectation name %s", strconv.Quote(clip(name)))
				}
			}
			c := xv.get("check")
			if c == nil {
				ct.ok = false
				continue
			}
			x := Expectation{Name: name, Check: c.text, OnFail: xv.get("on_fail").str(OnFailQuarantine)}
			e, ok := b.condition(exprText{c.text, c, what}, sc)
			ct.ok = ct.ok && ok
			t.Expect = append(t.Expect, x)
			ct.expect = append(ct.expect, CompiledExpectation{x.Name, e, x.OnFail})
		}
	}
	return ct
}

// condition compiles an expression that must be a boolean.
func (b *builder) condition(x exprText, sc scope) (Expr, bool) {
	e, t, ok := b.compile(x, sc)
	if ok && t != typeBool && t != typeAny {
		b.r.errorf(x.at.at, compareHint(t), "%s: %s is %s, not a condition", x.what, strconv.Quote(clip(x.at.shown)), t)
		return e, false
	}
	return e, ok
}

// literal tells whether an expression is a constant as it is written, perhaps with a sign.
func literal(e Expr) bool {
	if c, ok := e.(Call); ok && c.Func == "neg" && len(c.Args) == 1 {
		e = c.Args[0]
	}
	l, ok := e.(Literal)
	return ok && l.Value != nil
}

// assign compiles the value of a column.
func (b *builder) assign(m entry, x exprText, sc scope, t *Table) (Assign, bool) {
	col, known := t.Column(m.name)
	if m.v == nil {
		return Assign{Column: m.name}, false // reported as having no value
	}
	if !known && len(t.Columns) > 0 {
		var all []string
		for _, c := range t.Columns {
			all = append(all, c.Name)
		}
		hint := suggest(m.name, all)
		if isSystemColumn(m.name) {
			hint = "columns beginning with '_' are filled by Cauce"
		}
		b.r.errorf(m.at, hint, "unknown column %s of table %s", strconv.Quote(clip(m.name)), t.Name)
	}
	e, et, ok := b.compile(x, sc)
	if !known || !ok {
		return Assign{m.name, e}, false
	}
	if hint, fits := assignable(et, col.Type); !fits {
		b.r.errorf(x.at.at, hint, "%s: %s is %s; column %s has the type %s", x.what, strconv.Quote(clip(x.at.shown)), et, col.Name, strings.ToUpper(col.Type.String()))
		return Assign{col.Name, e}, false
	}
	if literal(e) {
		fits, err := b.parser.Fits(e, col.Type, t.Timezone.String())
		if err != nil {
			b.r.errorf(x.at.at, "", "%s: %s: %v", x.what, strconv.Quote(clip(x.at.shown)), err)
			return Assign{col.Name, e}, false
		}
		if !fits {
			b.r.errorf(x.at.at, "every row would go to quarantine", "%s: the constant %s is no %s, which column %s is", x.what, clip(x.at.shown), strings.ToUpper(col.Type.String()), col.Name)
			return Assign{col.Name, e}, false
		}
	}
	if sc.raw && et == typeText {
		e = (&checker{b: b, sc: sc}).decimalSign(e, col.Type)
	}
	return Assign{col.Name, e}, true
}

// compileSource makes the plan of a source.
func (b *builder) compileSource(s *Source, e entry) {
	t := b.lake.Table(s.Table)
	if s.Table == "" || t == nil || s.Kind == "" {
		return
	}
	before := len(b.r.diags)
	p := &Plan{Source: s, Table: t}
	sc := scope{raw: true, source: s, table: t}
	if s.Kind == KindFiles && s.CSV.Header == HeaderFalse && len(s.CSV.Columns) > 0 { // else that is reported
		sc.fields = append(slices.Clone(s.CSV.Columns), s.CSV.Optional...)
	}
	raw := map[string]bool{}
	note := func(e Expr) {
		Walk(e, func(e Expr) {
			if n, ok := e.(Name); ok {
				raw[n.Name] = true
			}
		})
	}
	ok := true
	if f := e.v.get("filter"); f != nil {
		c, good := b.condition(exprText{f.text, f, s.Name + ".filter"}, sc)
		p.Filter, ok = c, ok && good
		note(c)
	}
	if d := e.v.get("delete"); d != nil {
		c, good := b.condition(exprText{d.text, d, s.Name + ".delete"}, sc)
		p.Delete, ok = c, ok && good
		note(c)
		if len(t.Key) == 0 {
			b.r.errorf(d.at, "give the table a key", "source %s deletes rows, but table %s has no key to find them by", s.Name, t.Name)
		}
	}
	tombstones := s.Kafka != nil && s.Kafka.Tombstones != nil
	if tombstones {
		gone := Call{"is not null", []Expr{Name{RawTombstone}}}
		if p.Filter != nil {
			p.Filter = Call{"or", []Expr{gone, p.Filter}}
		}
		if p.Delete == nil {
			p.Delete = gone
		} else {
			p.Delete = Call{"or", []Expr{gone, p.Delete}}
		}
		raw[RawTombstone] = true
	}
	mapped := map[string]Assign{}
	if f := e.v.get("fields"); f != nil {
		for _, m := range f.keys {
			a, good := b.assign(m, exprText{m.v.str(""), m.v, s.Name + ".fields." + m.name}, sc, t)
			ok = ok && good
			note(a.Expr)
			if _, dup := mapped[a.Column]; dup {
				b.r.errorf(m.at, "names ignore case", "column %s is mapped twice", a.Column)
			}
			mapped[a.Column] = a
		}
	}
	required := map[string]bool{}
	for n := range raw {
		required[n] = true
	}
	ct := b.compiled[t]
	for _, c := range t.Columns {
		a, explicit := mapped[c.Name]
		if c.Name == ColumnUnknown {
			if s.UnknownFields == UnknownKeep {
				p.Fields = append(p.Fields, Assign{c.Name, Name{RawUnknown}})
			}
			continue
		}
		if !explicit {
			if strings.EqualFold(c.Name, ColumnIngestedAt) || ct.set[c.Name] || sc.fields != nil && !slices.Contains(sc.fields, c.Name) {
				if c.NotNull && !ct.set[c.Name] && !strings.EqualFold(c.Name, ColumnIngestedAt) {
					b.r.errorf(e.at, fmt.Sprintf("map it, such as fields: {%s: %s}", c.Name, quoteName(sc.fields[0])), "source %s has nothing for column %s of table %s, which must not be null", s.Name, c.Name, t.Name)
				}
				continue
			}
			a = Assign{c.Name, Name{c.Name}}
			a.Expr = (&checker{b: b, sc: sc}).decimalSign(a.Expr, c.Type)
			p.Implied = append(p.Implied, c.Name)
			raw[c.Name] = true
			if c.NotNull {
				required[c.Name] = true
			}
		}
		p.Fields = append(p.Fields, a)
	}
	for n := range raw {
		p.RawFields = append(p.RawFields, n)
	}
	if tombstones {
		b.checkTombstones(s, t, e.v.get("kafka"), raw)
	}
	slices.Sort(p.RawFields)
	if s.Kind == KindFiles && s.Format == FormatCSV { // of other formats each record says what it has
		for n := range required {
			if !slices.Contains(s.CSV.Optional, n) {
				p.Required = append(p.Required, n)
			}
		}
		slices.Sort(p.Required)
		s.CSV.named = p.RawFields
		b.checkCSVNames(p, e.v.get("csv"), raw)
	}
	if len(t.Key) == 0 && !s.Streaming() {
		if o := e.v.get("on_reissue"); o == nil {
			s.OnReissue = ReissueReplace
		} else if s.OnReissue == ReissueMerge {
			b.r.errorf(o.at, "write replace, or give the table a key", "on_reissue: merge: table %s has no key, so that a changed file would add its rows once more", t.Name)
		}
	}
	if !ok || !ct.ok || len(b.r.diags) > before {
		return
	}
	p.Steps, p.Expect = ct.steps, ct.expect
	p.Hash = planHash(p)
	b.lake.plans[s.Name] = p
}

// checkTombstones refuses tombstones that could delete nothing.
func (b *builder) checkTombstones(s *Source, t *Table, v *value, raw map[string]bool) {
	ts, block := s.Kafka.Tombstones, v.get("tombstones")
	if len(t.Key) == 0 {
		b.r.errorf(v.place(), "give the table a key", "source %s deletes rows, but table %s has no key to find them by", s.Name, t.Name)
	}
	var names []string
	for n := range raw {
		if n != RawTombstone {
			names = append(names, n)
		}
	}
	slices.Sort(names)
	for key, name := range map[string]string{"key": ts.Key, "time": ts.Time} {
		if name != "" && !raw[name] {
			b.r.errorf(block.get(key).at, suggest(name, names), "kafka.tombstones.%s: no expression of source %s reads the raw field %s", key, s.Name, strconv.Quote(clip(name)))
		}
	}
	if ts.Key != "" && ts.Time == "" && len(t.Sequence) > 0 {
		b.r.errorf(block.at, "name the raw field for the message's time, such as time: T", "kafka.tombstones: a deletion has no value for %s, so that it would be older than every row and delete nothing", strings.Join(t.Sequence, ", "))
	}
}

// checkCSVNames warns of fields that a file without header cannot have.
func (b *builder) checkCSVNames(p *Plan, v *value, raw map[string]bool) {
	c := p.Source.CSV
	if o := v.get("optional"); o != nil {
		for _, i := range o.items {
			if !raw[i.text] {
				b.warnf(i.at, suggest(i.text, p.RawFields), "csv.optional: no expression of source %s names the field %s", p.Source.Name, strconv.Quote(clip(i.shown)))
			}
		}
	}
	if c.Header != HeaderAuto || len(c.Columns) == 0 {
		return
	}
	for _, n := range p.Required {
		if !slices.Contains(c.Columns, n) {
			b.warnf(v.get("columns").place(), "name it in csv.columns, or in csv.optional if such files do not have it",
				"field %s is not among csv.columns of source %s: files without header will be refused", strconv.Quote(n), p.Source.Name)
		}
	}
}

// planHash identifies what the plan makes of records.
func planHash(p *Plan) string {
	type pair struct{ Name, Value string }
	var h struct {
		Format   int
		Columns  []pair
		NotNull  []string
		Key      []string
		Sequence []string
		Timezone string
		Rank     int32
		Kind     string
		Records  string
		CSV      CSV
		FromName string
		Named    string
		Unknown  string
		Filter   string
		Delete   string
		Gone     *Tombstones `json:",omitempty"`
		Fields   []pair
		Implied  []string
		Steps    [][]pair
		Expect   []pair
		Required []string
	}
	h.Format = 1
	for _, c := range p.Table.Columns {
		h.Columns = append(h.Columns, pair{c.Name, c.Type.String()})
		if c.NotNull {
			h.NotNull = append(h.NotNull, c.Name)
		}
	}
	h.Key, h.Sequence, h.Timezone = p.Table.Key, p.Table.Sequence, p.Table.Timezone.String()
	s := p.Source
	h.Rank, h.Kind, h.Records, h.CSV, h.Unknown = s.Rank, s.Kind, s.Format, s.CSV, s.UnknownFields
	if s.FromFilename != nil {
		h.FromName, h.Named = s.FromFilename.String(), s.Generation
	}
	if p.Filter != nil {
		h.Filter = Format(p.Filter)
	}
	if p.Delete != nil {
		h.Delete = Format(p.Delete)
	}
	if s.Kafka != nil {
		h.Gone = s.Kafka.Tombstones
	}
	for _, a := range p.Fields {
		h.Fields = append(h.Fields, pair{a.Column, Format(a.Expr)})
	}
	h.Implied, h.Required = p.Implied, p.Required
	for _, st := range p.Steps {
		var step []pair
		for _, a := range st.Set {
			step = append(step, pair{a.Column, Format(a.Expr)})
		}
		if st.Where != nil {
			step = append(step, pair{"", Format(st.Where)})
		}
		h.Steps = append(h.Steps, step)
	}
	for _, x := range p.Expect {
		h.Expect = append(h.Expect, pair{x.Name + ":" + x.OnFail, Format(x.Check)})
	}
	text, err := json.Marshal(h)
	if err != nil {
		panic("BUG: a plan is not JSON: " + err.Error())
	}
	sum := sha256.Sum256(text)
	return hex.EncodeToString(sum[:])
}

// checkNotNull refuses NOT NULL columns that a deletion cannot fill.
func (b *builder) checkNotNull(t *Table, v *value) {
	if !t.Deletes {
		return
	}
	for _, c := range v.get("columns").entries() {
		if col, _ := t.Column(c.name); !col.NotNull {
			continue
		}
		if contains(t.Key, c.name) || contains(t.Sequence, c.name) || contains(t.PartitionBy, c.name) {
			continue
		}
		at := c.at
		if n := c.v.get("not_null"); n != nil {
			at = n.at
		}
		b.r.errorf(at, `remove not_null, and write an expectation that spares deletions`,
			"column %s must not be null, but a source of table %s deletes rows: a deletion may know only key, sequence and partition columns", c.name, t.Name)
	}
}

func (v *value) entries() []entry {
	if v == nil {
		return nil
	}
	return v.keys
}

func contains(list []string, name string) bool {
	return slices.ContainsFunc(list, func(s string) bool { return strings.EqualFold(s, name) })
}

// checkFeeds looks at a table together with all its sources.
func (b *builder) checkFeeds(t *Table, v *value) {
	var files, streams []*Source
	for _, s := range b.lake.Sources {
		if s.Table != t.Name || s.Kind == "" {
			continue
		}
		if s.Streaming() {
			streams = append(streams, s)
		} else {
			files = append(files, s)
		}
	}
	at := b.tableAt(t)
	if len(t.Key) > 0 && len(t.Sequence) == 0 && len(streams) > 0 && v.get("sequence").place() == (pos{}) {
		b.r.errorf(at, "name the column that tells which of two rows with the same key is newer, such as sequence: [event_time]",
			"table %s has a key and is fed by the stream %s, but has no sequence", t.Name, streams[0].Name)
	}
	if len(files)+len(streams) == 0 {
		b.warnf(at, "", "no source fills table %s", t.Name)
	}
	for _, s := range streams {
		for _, f := range files {
			if s.Rank <= f.Rank && len(t.Key) > 0 {
				b.warnf(b.sourceAt(s), fmt.Sprintf("give it rank: %d", f.Rank+1),
					"stream %s has rank %d, files %s rank %d: at equal sequence every file would beat the stream, and each night rewrite yesterday", s.Name, s.Rank, f.Name, f.Rank)
				break
			}
		}
	}
	for _, p := range t.PartitionBy {
		if c, _ := t.Column(p); typeOf(c.Type) == typeTimestamp || contains(t.Key, p) && len(t.Key) == 1 {
			b.warnf(at, "partition by a day, such as event_date DATE set by to_date(event_time)", "partition_by: column %s has a value of its own in nearly every row, which makes as many folders", p)
		}
	}
}

func (b *builder) tableAt(t *Table) pos   { return b.places["table/"+t.Name] }
func (b *builder) sourceAt(s *Source) pos { return b.places["source/"+s.Name] }

// checkTopics refuses two sources of one table that read the same topic with different meaning of what is new.
func (b *builder) checkTopics(v *value) {
	seen := map[string]*Source{}
	for _, s := range b.lake.Sources {
		if !s.Streaming() || s.Topic == "" || s.Table == "" {
			continue
		}
		k := s.Kind + "\x00" + s.Topic + "\x00" + s.Table
		if o := seen[k]; o != nil {
			b.warnf(b.sourceAt(s), "", "sources %s and %s read the topic %s into the same table", o.Name, s.Name, s.Topic)
		}
		seen[k] = s
	}
}

// settings reads what is not about tables and sources.
func (b *builder) settings(v *value) {
	l := b.lake
	duration := func(x *value, path string) time.Duration {
		if x != nil {
			return time.Duration(x.num)
		}
		d, err := parseDuration(defaultOf(path))
		if err != nil {
			panic("BUG: default of " + path)
		}
		return d
	}
	size := func(x *value, path string) int64 {
		if x != nil {
			return x.num
		}
		n, err := ParseSize(defaultOf(path))
		if err != nil {
			panic("BUG: default of " + path)
		}
		return n
	}
	st := v.get("stream")
	l.Stream = Stream{
		Trigger: duration(st.get("trigger"), "stream.trigger"),
		RowsMax: int(size(st.get("rows_max"), "stream.rows_max")), BytesMax: size(st.get("bytes_max"), "stream.bytes_max"),
	}
	b.schedule(v.get("schedule"), duration, size)
	m := v.get("maintenance")
	l.Maintenance = Maintenance{
		Optimize: m.get("optimize").bool(true), FilesMin: int(size(m.get("files_min"), "maintenance.files_min")), FileBytesTarget: size(m.get("file_bytes_target"), "maintenance.file_bytes_target"),
		Vacuum: m.get("vacuum").bool(true), Retention: duration(m.get("retention"), "maintenance.retention"),
	}
	if r := m.get("retention"); r != nil && l.Maintenance.Retention < 7*24*time.Hour {
		b.r.errorf(r.at, "it must be at least 7d", "maintenance.retention: %s: readers and writers that run longer would lose their files", strconv.Quote(r.shown))
	}
	so := v.get("store")
	l.Store = Store{
		Endpoint: so.get("endpoint").str(""), Region: so.get("region").str(""), Profile: so.get("profile").str(""), Role: so.get("role").str(""),
		ExternalID: so.get("external_id").str(""), Encryption: so.get("encryption").str(""), KMSKey: so.get("kms_key").str(""),
		Commit: so.get("commit").str(CommitConditional), CommitTable: so.get("commit_table").str("delta_log"), CommitScheme: so.get("commit_scheme").str("s3a"),
		CacheBytes: size(so.get("cache"), "store.cache"),
	}
	if x := so.get("endpoint"); x != nil {
		if u, err := url.Parse(x.text); err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Host == "" {
			b.r.errorf(x.at, "write it like http://localhost:9000", "store.endpoint: %s is no address of a server", strconv.Quote(clip(x.shown)))
		}
	}
	if x := so.get("path_style"); x != nil {
		on := x.bool(true)
		l.Store.PathStyle = &on
	}
	bu := v.get("buffer")
	l.Buffer = Buffer{Sync: bu.get("sync").str(SyncInterval)}
	if x := v.get("engine").get("memory_limit"); x != nil {
		l.Engine.MemoryLimit = x.num
	}
	ix := v.get("index")
	l.Index = Index{MemoryBytes: size(ix.get("memory"), "index.memory"), DiskBytes: size(ix.get("disk"), "index.disk")}
	if x := v.get("metrics").get("listen"); x != nil {
		if host, port, err := net.SplitHostPort(x.text); err != nil || host == "" || port == "" {
			b.r.errorf(x.at, "host and port, such as 127.0.0.1:9464; 0.0.0.0 for every address of the machine", "metrics.listen: %s is no address to listen on", strconv.Quote(clip(x.shown)))
		}
		l.Metrics.Listen = x.text
	}
}
