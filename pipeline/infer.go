package pipeline

import (
	"archive/zip"
	"bytes"
	"compress/gzip"
	"encoding/csv"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"sort"
	"strconv"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/klauspost/compress/zstd"
	"golang.org/x/text/encoding/charmap"
	encunicode "golang.org/x/text/encoding/unicode"
	"golang.org/x/text/unicode/norm"
)

// InferOptions are what a person knows beyond the sample.
type InferOptions struct {
	Table   string   // "": after the file's name
	Key     []string // names of fields or columns; nil: guessed
	Time    string   // name of the field or column that tells which row is newer; "": guessed
	Storage string   // "": file:./data
	// BytesMax bounds the sample; 0: 8 MiB.
	BytesMax int64
}

// Inference is a lake file made from a sample.
type Inference struct {
	Text     string   // the lake file; every guess is marked by a comment
	Warnings []string // what a person should look at before the first run
	Rows     int      // records in the sample
	Table    string
}

// Infer reads a sample of a CSV file (plain, .gz, .zst or .zip) or of the first such file of a folder, guesses
// delimiter, encoding, header, columns, types, key and time, and writes a lake file for it.
func Infer(path string, o InferOptions) (*Inference, error) {
	info, err := os.Stat(path)
	if err != nil {
		return nil, err
	}
	file := path
	if info.IsDir() {
		if file, err = firstCSV(path); err != nil {
			return nil, err
		}
	}
	if o.BytesMax <= 0 {
		o.BytesMax = 8 << 20
	}
	sample, whole, err := readSample(file, o.BytesMax)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", file, err)
	}
	inf, err := inferSample(filepath.Base(file), sample, whole, o)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", file, err)
	}
	return inf, nil
}

var csvName = regexp.MustCompile(`(?i)\.(csv|tsv|txt)(\.gz|\.zst|\.zip)?$|\.zip$`)

func firstCSV(dir string) (string, error) {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return "", err
	}
	for _, e := range entries {
		if e.Type().IsRegular() && !strings.HasPrefix(e.Name(), ".") && csvName.MatchString(e.Name()) {
			return filepath.Join(dir, e.Name()), nil
		}
	}
	return "", fmt.Errorf("%s holds no CSV file (.csv, .tsv or .txt, also .gz, .zst, .zip)", dir)
}

// readSample reads the beginning of a file; whole tells whether that is all of it.
func readSample(path string, bytesMax int64) (sample []byte, whole bool, err error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, false, err
	}
	defer f.Close()
	var r io.Reader = f
	switch strings.ToLower(filepath.Ext(path)) {
	case ".gz":
		z, err := gzip.NewReader(f)
		if err != nil {
			return nil, false, err
		}
		defer z.Close()
		r = z
	case ".zst":
		z, err := zstd.NewReader(f)
		if err != nil {
			return nil, false, err
		}
		defer z.Close()
		r = z
	case ".zip":
		info, err := f.Stat()
		if err != nil {
			return nil, false, err
		}
		z, err := zip.NewReader(f, info.Size())
		if err != nil {
			return nil, false, err
		}
		i := slices.IndexFunc(z.File, func(m *zip.File) bool { return !m.FileInfo().IsDir() && !strings.HasPrefix(m.Name, "__MACOSX") })
		if i < 0 {
			return nil, false, errors.New("the archive is empty")
		}
		m, err := z.File[i].Open()
		if err != nil {
			return nil, false, err
		}
		defer m.Close()
		r = m
	}
	sample, err = io.ReadAll(io.LimitReader(r, bytesMax+1))
	if err != nil {
		return nil, false, err
	}
	if int64(len(sample)) > bytesMax {
		return sample[:bytesMax], false, nil
	}
	return sample, true, nil
}

// decodeSample finds the encoding of a sample and gives it as UTF-8.
func decodeSample(b []byte, whole bool) (text, encoding string, err error) {
	switch {
	case bytes.HasPrefix(b, []byte("\xef\xbb\xbf")):
		b = b[3:]
	case bytes.HasPrefix(b, []byte("\xff\xfe")), bytes.HasPrefix(b, []byte("\xfe\xff")):
		if len(b)%2 == 1 {
			b = b[:len(b)-1]
		}
		out, err := encunicode.UTF16(encunicode.LittleEndian, encunicode.UseBOM).NewDecoder().Bytes(b)
		return string(out), "utf-8", err // the byte order mark says the rest
	}
	if bytes.IndexByte(b, 0) >= 0 {
		return "", "", errors.New("it is binary: it holds zero bytes")
	}
	if !whole { // the cut may have split a character
		for range utf8.UTFMax {
			if r, n := utf8.DecodeLastRune(b); r == utf8.RuneError && n == 1 && len(b) > 0 && b[len(b)-1] >= 0x80 {
				b = b[:len(b)-1]
			}
		}
	}
	if utf8.Valid(b) {
		return string(b), "utf-8", nil
	}
	out, err := charmap.Windows1252.NewDecoder().Bytes(b)
	return string(out), "windows-1252", err
}

// rows splits a text at a delimiter; a broken record ends the list.
func rows(text string, delimiter rune, limit int) [][]string {
	r := csv.NewReader(strings.NewReader(text))
	r.Comma, r.FieldsPerRecord, r.LazyQuotes, r.ReuseRecord = delimiter, -1, true, false
	var out [][]string
	for len(out) < limit {
		rec, err := r.Read()
		if err != nil {
			break
		}
		out = append(out, rec)
	}
	return out
}

// guessDelimiter takes the character that splits most records into the same number of fields. Where two do so equally
// well the comma yields, which may be a decimal sign.
func guessDelimiter(text string) rune {
	best, bestShare, bestFields := ',', 0.0, 1
	for _, d := range []rune{';', '\t', '|', ','} {
		recs := rows(text, d, 200)
		if len(recs) == 0 {
			continue
		}
		counts := map[int]int{}
		for _, r := range recs {
			counts[len(r)]++
		}
		for n, c := range counts {
			share := float64(c) / float64(len(recs))
			if n > 1 && share >= 0.5 && (share > bestShare+0.02 || share > bestShare-0.02 && n > bestFields && d != ',') {
				best, bestShare, bestFields = d, share, n
			}
		}
	}
	return best
}

// nullTexts are what exports write for a missing value, beside nothing.
var nullTexts = []string{"NULL", "null", "Null", "NA", "N/A", "n/a", "nan", "NaN", "None", "none", `\N`, "-", "--", "?"}

// column is what a sample tells about a field.
type column struct {
	raw     string // name of the field
	name    string // name of the column
	typ     string
	expr    string // "" if the field maps itself
	guess   string // comment
	values  int    // not null
	nulls   map[string]bool
	unique  bool
	time    bool
	comma   bool
	sorting int // how much the name says that it orders changes
}

func inferSample(name string, sample []byte, whole bool, o InferOptions) (*Inference, error) {
	text, encoding, err := decodeSample(sample, whole)
	if err != nil {
		return nil, err
	}
	if !whole {
		if i := strings.LastIndexByte(text, '\n'); i >= 0 {
			text = text[:i+1]
		}
	}
	control := 0
	for _, r := range text {
		if r < ' ' && r != '\n' && r != '\r' && r != '\t' || r == 0x7f {
			control++
		}
	}
	if control > len(text)/100 {
		return nil, errors.New("it is not text: it is full of control characters")
	}
	if strings.TrimSpace(text) == "" {
		return nil, errors.New("it is empty: there is nothing to infer columns from")
	}
	delim := guessDelimiter(text)
	recs := rows(text, delim, 1<<20)
	if len(recs) == 0 {
		return nil, errors.New("no record can be read")
	}
	header := looksLikeHeader(recs)
	inf := &Inference{}
	warn := func(format string, args ...any) { inf.Warnings = append(inf.Warnings, fmt.Sprintf(format, args...)) }
	width := modalWidth(recs)
	var fields []string
	if header {
		fields = recs[0]
		recs = recs[1:]
		width = len(fields)
	} else {
		for i := range width {
			fields = append(fields, fmt.Sprintf("column%d", i+1))
		}
		warn("the file has no header: the columns are named column1 to column%d; give them names", width)
	}
	ragged := 0
	data := recs[:0:0]
	for _, r := range recs {
		if len(r) == width {
			data = append(data, r)
		} else {
			ragged++
		}
	}
	if ragged > 0 {
		warn("%s of %d without the usual %s; they will go to quarantine", count(ragged, "record"), len(recs), count(width, "field"))
	}
	if len(data) == 0 {
		warn("the sample has no records: every type is a guess of STRING")
	}
	inf.Rows = len(data)
	cols := make([]column, width)
	taken := map[string]bool{ColumnIngestedAt: true, "event_date": false}
	nulls := map[string]bool{}
	for i := range cols {
		cols[i] = inferColumn(strings.TrimSpace(fields[i]), i, data, delim)
		cols[i].name = columnName(cols[i].raw, i, taken)
		for n := range cols[i].nulls {
			nulls[n] = true
		}
	}
	for _, c := range cols {
		if strings.Contains(c.guess, "ambiguous") {
			warn("column %s: %s", c.name, c.guess)
		}
	}
	key, keyGuess := inferKey(cols, data, o, warn)
	if key == nil && len(o.Key) > 0 {
		return nil, fmt.Errorf("key: %s", inf.Warnings[len(inf.Warnings)-1])
	}
	seq, err := inferTime(cols, o)
	if err != nil {
		return nil, err
	}
	table := o.Table
	if table == "" {
		table = tableName(name)
	}
	inf.Table = table
	inf.Text = renderInference(name, table, cols, data, key, keyGuess, seq, csvGuess{delim, header, encoding, sortedKeys(nulls)}, whole, o, taken)
	return inf, nil
}

func modalWidth(recs [][]string) int {
	counts := map[int]int{}
	best := len(recs[0])
	for _, r := range recs {
		counts[len(r)]++
	}
	for n, c := range counts {
		if c > counts[best] || c == counts[best] && n > best {
			best = n
		}
	}
	return best
}

var wordLike = regexp.MustCompile(`^[\pL_][\pL\pN _.\-/()%#€$]*$`)

// looksLikeHeader tells whether the first record names the fields: all words, all different, and none of them a value.
func looksLikeHeader(recs [][]string) bool {
	first := recs[0]
	seen := map[string]bool{}
	for i, v := range first {
		v = strings.TrimSpace(v)
		if v == "" && i > 0 && i == len(first)-1 {
			continue // a delimiter at the end of each line
		}
		if !wordLike.MatchString(v) || seen[strings.ToLower(v)] || booleanText[strings.ToLower(v)] || slices.Contains(nullTexts, v) {
			return false
		}
		seen[strings.ToLower(v)] = true
	}
	// A word that comes again below in its own column is a value.
	for _, r := range recs[1:min(len(recs), 1000)] {
		for i, v := range r {
			if i < len(first) && v != "" && strings.TrimSpace(v) == strings.TrimSpace(first[i]) {
				return false
			}
		}
	}
	return true
}

var booleanText = map[string]bool{"true": true, "false": true, "t": true, "f": true, "yes": true, "no": true, "y": true, "n": true, "on": true, "off": true}

var (
	integerText  = regexp.MustCompile(`^[+-]?\d{1,19}$`)
	decimalText  = regexp.MustCompile(`^[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d{1,3})?$`)
	commaText    = regexp.MustCompile(`^[+-]?\d+(,\d+)?$`)
	thousandText = regexp.MustCompile(`^[+-]?\d{1,3}(\.\d{3})+(,\d+)?$`)
	isoDate      = regexp.MustCompile(`^\d{4}-\d{2}-\d{2}$`)
	isoTime      = regexp.MustCompile(`^\d{4}-?\d{2}-?\d{2}[T ]\d{2}:?\d{2}(:?\d{2}([.,]\d+)?)? ?(Z|[+-]\d{2}(:?\d{2})?)?$`)
	otherTime    = regexp.MustCompile(`^(\d{1,2})([./-])(\d{1,2})[./-](\d{4})(?:( |T|, )(\d{2}:\d{2})(:\d{2})?)?$`)
	timeName     = regexp.MustCompile(`(?i)(time|date|_at$|_ts$|^ts$|epoch|fecha|hora|when|created|updated|changed|modified)`)
	changeName   = regexp.MustCompile(`(?i)(updat|chang|modif|version)`)
	idName       = regexp.MustCompile(`(?i)(^|[_ .-])(id|uuid|guid|key|code|no|number|nr|num|sku|isbn|ref)$|Id$|ID$`)
)

func inferColumn(raw string, i int, data [][]string, delim rune) column {
	c := column{raw: raw, nulls: map[string]bool{}, unique: true}
	all := map[string]func(string) bool{
		"bool": func(v string) bool { return booleanText[strings.ToLower(v)] },
		"int":  integerText.MatchString, "dec": decimalText.MatchString, "comma": func(v string) bool { return commaText.MatchString(v) || thousandText.MatchString(v) },
		"date": isoDate.MatchString, "iso": func(v string) bool { return isoTime.MatchString(v) || isoDate.MatchString(v) }, "other": otherTime.MatchString,
	}
	left := []string{"bool", "int", "dec", "comma", "date", "iso", "other"}
	seen := make(map[string]bool, min(len(data), 1<<16))
	var values []string
	nullish := map[string]bool{}
	for _, r := range data {
		v := strings.TrimSpace(r[i])
		if v == "" {
			c.unique = false
			continue
		}
		if c.unique && seen[v] {
			c.unique = false
		}
		seen[v] = true
		if slices.Contains(nullTexts, v) {
			nullish[v] = true
			continue
		}
		values = append(values, v)
		left = slices.DeleteFunc(left, func(k string) bool { return !all[k](v) })
	}
	c.values = len(values)
	switch {
	case len(values) == 0:
		c.typ, c.guess = "STRING", "no value in the sample"
		return c
	case len(left) > 0:
		// Only where everything else has a type are words such as NA missing values and not words.
		c.nulls = nullish
	}
	has := func(k string) bool { return slices.Contains(left, k) }
	// ref is how an expression names the field.
	ref := quoteName(raw)
	if strings.ContainsRune(raw, '.') {
		ref = `"` + strings.ReplaceAll(raw, `"`, `""`) + `"`
	}
	switch {
	case has("bool"):
		c.typ, c.expr = "BOOLEAN", "to_boolean("+ref+")"
	case has("int") && epochTimes(values, raw):
		c.typ, c.expr, c.time = "TIMESTAMP", "to_event_time("+ref+")", true
		c.guess = "the numbers are times since 1970, such as " + values[0]
	case has("int") && leadingZeros(values):
		c.typ, c.guess = "STRING", "digits with leading zeros, such as "+zeroExample(values)
	case has("int") && fitsLong(values):
		c.typ = "LONG"
	case has("dec"):
		c.typ, c.guess = decimalType(values, '.')
	case has("comma") && delim != ',':
		c.typ, c.guess = decimalType(values, ',')
		c.comma = true
		if slices.ContainsFunc(values, thousandText.MatchString) {
			c.expr = "replace(" + ref + ", '.', '')"
			c.guess += "; dots are taken for thousands separators"
		}
	case has("date"):
		c.typ = "DATE"
	case has("iso"):
		c.typ, c.expr, c.time = "TIMESTAMP", "to_event_time("+ref+")", true
	case has("other"):
		var pattern string
		pattern, c.typ, c.guess = otherPattern(values)
		if pattern == "" {
			c.typ = "STRING"
			break
		}
		if c.typ == "DATE" {
			c.expr = "to_date(to_event_time(" + ref + ", '" + pattern + "'))"
		} else {
			c.expr, c.time = "to_event_time("+ref+", '"+pattern+"')", true
		}
	default:
		c.typ = "STRING"
	}
	if changeName.MatchString(raw) {
		c.sorting = 2
	} else if timeName.MatchString(raw) {
		c.sorting = 1
	}
	return c
}

// epochTimes tells whether integers are times: of a length that seconds, ms, µs or ns have in the years 2001 to 2100,
// and under a name that says so.
func epochTimes(values []string, name string) bool {
	if !timeName.MatchString(name) && !regexp.MustCompile(`^column\d+$`).MatchString(name) {
		return false
	}
	const from, to = 978307200, 4102444800
	for _, v := range values {
		n, err := strconv.ParseInt(v, 10, 64)
		if err != nil {
			return false
		}
		for n >= 100_000_000_000 {
			n /= 1000
		}
		if n < from || n > to {
			return false
		}
	}
	return true
}

func leadingZeros(values []string) bool { return zeroExample(values) != "" }

func zeroExample(values []string) string {
	for _, v := range values {
		if len(v) > 1 && v[0] == '0' {
			return v
		}
	}
	return ""
}

func fitsLong(values []string) bool {
	for _, v := range values {
		if _, err := strconv.ParseInt(v, 10, 64); err != nil {
			return false
		}
	}
	return true
}

// decimalType gives the decimal that holds all values exactly, with room for larger ones.
func decimalType(values []string, sign byte) (typ, guess string) {
	whole, scale := 1, 0
	for _, v := range values {
		if sign == ',' {
			v = strings.ReplaceAll(strings.ReplaceAll(v, ".", ""), ",", ".")
		}
		v = strings.TrimLeft(v, "+-")
		mantissa, exp, _ := strings.Cut(strings.ToLower(v), "e")
		e, _ := strconv.Atoi(exp)
		w, f, _ := strings.Cut(mantissa, ".")
		w, f = strings.TrimLeft(w, "0"), strings.TrimRight(f, "0")
		whole, scale = max(whole, len(w)+e), max(scale, len(f)-e)
	}
	switch {
	case whole+scale > 38 || scale > 30:
		return "DOUBLE", "more digits than any DECIMAL has"
	case whole+scale > 16:
		return fmt.Sprintf("DECIMAL(38,%d)", scale), fmt.Sprintf("up to %d digits before and %d after the sign", whole, scale)
	}
	seen := scale
	if money(values, sign) {
		scale = 2
	} else if whole+8 <= 16 {
		scale = max(scale, 8)
	}
	return fmt.Sprintf("DECIMAL(18,%d)", scale), fmt.Sprintf("%s in the sample; a value with more than %d is refused", count(seen, "decimal"), scale)
}

// money tells whether every value is written with exactly two decimals.
func money(values []string, sign byte) bool {
	for _, v := range values {
		if i := strings.LastIndexByte(v, sign); i < 0 || len(v)-i-1 != 2 {
			return false
		}
	}
	return true
}

// count writes a number with its noun.
func count(n int, noun string) string {
	if n == 1 {
		return "1 " + noun
	}
	return fmt.Sprintf("%d %ss", n, noun)
}

// otherPattern finds the pattern of dates such as 20.08.2024 14:05 and 8/20/2024.
func otherPattern(values []string) (pattern, typ, guess string) {
	var first *[]string
	dayFirst, monthFirst := false, false
	for _, v := range values {
		m := otherTime.FindStringSubmatch(v)
		if first == nil {
			first = &m
		} else if m[2] != (*first)[2] || m[5] != (*first)[5] || (m[6] == "") != ((*first)[6] == "") || (m[7] == "") != ((*first)[7] == "") {
			return "", "", "dates of several forms"
		}
		a, _ := strconv.Atoi(m[1])
		b, _ := strconv.Atoi(m[3])
		dayFirst = dayFirst || a > 12
		monthFirst = monthFirst || b > 12
	}
	sep := (*first)[2]
	switch {
	case dayFirst && monthFirst:
		return "", "", "dates that are neither day nor month first throughout"
	case monthFirst:
		pattern = "%m" + sep + "%d" + sep + "%Y"
	default:
		pattern = "%d" + sep + "%m" + sep + "%Y"
		if !dayFirst {
			guess = "ambiguous: the sample does not tell day from month; day first is assumed"
		}
	}
	typ = "DATE"
	if (*first)[6] != "" {
		typ = "TIMESTAMP"
		pattern += (*first)[5] + "%H:%M"
		if (*first)[7] != "" {
			pattern += ":%S"
		}
	}
	return pattern, typ, guess
}

// columnName makes an identifier of a field's name.
func columnName(raw string, i int, taken map[string]bool) string {
	var b strings.Builder
	prevLower := false
	for _, r := range norm.NFD.String(raw) {
		switch {
		case unicode.Is(unicode.Mn, r):
		case r < 0x80 && (unicode.IsLetter(r) || unicode.IsDigit(r)):
			if unicode.IsUpper(r) && prevLower {
				b.WriteByte('_')
			}
			b.WriteRune(unicode.ToLower(r))
			prevLower = unicode.IsLower(r) || unicode.IsDigit(r)
		default:
			if s := b.String(); s != "" && !strings.HasSuffix(s, "_") {
				b.WriteByte('_')
			}
			prevLower = false
		}
	}
	name := strings.Trim(b.String(), "_")
	if name == "" {
		name = fmt.Sprintf("column%d", i+1)
	} else if name[0] >= '0' && name[0] <= '9' {
		name = "c" + name
	}
	if len(name) > 100 {
		name = name[:100]
	}
	base := name
	for n := 2; taken[name]; n++ {
		name = fmt.Sprintf("%s_%d", base, n)
	}
	taken[name] = true
	return name
}

var nameNoise = regexp.MustCompile(`[0-9]+`)

func tableName(file string) string {
	base := file
	for {
		ext := filepath.Ext(base)
		if ext == "" || len(ext) > 6 {
			break
		}
		base = strings.TrimSuffix(base, ext)
	}
	name := strings.Trim(columnName(nameNoise.ReplaceAllString(base, "-"), 0, map[string]bool{}), "_")
	if name == "" || strings.HasPrefix(name, "column") || name == "quarantine" {
		return "events"
	}
	return name
}

// locationOf is the pattern of a file and its later siblings: numbers become *.
func locationOf(file string) string {
	p := regexp.MustCompile(`[0-9][0-9_.:-]*[0-9]|[0-9]`).ReplaceAllString(strings.Map(func(r rune) rune {
		if strings.ContainsRune(`*?[]\`, r) {
			return '?'
		}
		return r
	}, file), "*")
	for _, ext := range []string{".gz", ".zst"} {
		p = strings.TrimSuffix(p, ext)
	}
	return p
}

// inferKey takes the key that is asked for, or the first column whose name says id and whose values are unique.
func inferKey(cols []column, data [][]string, o InferOptions, warn func(string, ...any)) (key []string, guess string) {
	if len(o.Key) > 0 {
		var at []int
		for _, k := range o.Key {
			i := slices.IndexFunc(cols, func(c column) bool { return c.name == k || c.raw == k })
			if i < 0 {
				i = slices.IndexFunc(cols, func(c column) bool { return strings.EqualFold(c.name, k) || strings.EqualFold(c.raw, k) })
			}
			if i < 0 {
				var names []string
				for _, c := range cols {
					names = append(names, c.name)
				}
				warn("unknown field %q; %s", k, suggest(k, names))
				return nil, ""
			}
			key = append(key, cols[i].name)
			at = append(at, i)
		}
		if dup, n := duplicates(data, at); n > 0 {
			warn("the key %s is not unique in the sample: it repeats in %s, such as %s; of rows with the same key only one stays", strings.Join(key, ", "), count(n, "record"), dup)
		}
		if n := empties(data, at); n > 0 {
			warn("the key %s is incomplete in %s of the sample: such rows go to quarantine", strings.Join(key, ", "), count(n, "record"))
		}
		return key, "as asked"
	}
	for i, c := range cols {
		if idName.MatchString(c.raw) && c.typ != "TIMESTAMP" && !strings.HasPrefix(c.typ, "D") && len(data) > 0 {
			if dup, n := duplicates(data, []int{i}); n == 0 && empties(data, []int{i}) == 0 {
				return []string{c.name}, "its name says id, and it is unique in the sample"
			} else if n > 0 {
				warn("column %s looks like an id but is not unique in the sample: it repeats in %s, such as %s; the table is left without a key", c.name, count(n, "record"), dup)
			}
		}
	}
	return nil, ""
}

func keyOf(r []string, at []int) string {
	parts := make([]string, len(at))
	for i, a := range at {
		parts[i] = strings.TrimSpace(r[a])
	}
	return strings.Join(parts, "\x1f")
}

func duplicates(data [][]string, at []int) (example string, n int) {
	seen := make(map[string]bool, len(data))
	for _, r := range data {
		k := keyOf(r, at)
		if seen[k] {
			if n++; n == 1 {
				example = strings.ReplaceAll(k, "\x1f", ", ")
			}
		}
		seen[k] = true
	}
	return example, n
}

func empties(data [][]string, at []int) (n int) {
	for _, r := range data {
		for _, a := range at {
			if strings.TrimSpace(r[a]) == "" {
				n++
				break
			}
		}
	}
	return n
}

// inferTime takes the column that tells which row is newer: -1 if there is none.
func inferTime(cols []column, o InferOptions) (int, error) {
	if o.Time != "" {
		i := slices.IndexFunc(cols, func(c column) bool { return strings.EqualFold(c.name, o.Time) || strings.EqualFold(c.raw, o.Time) })
		if i < 0 {
			var names []string
			for _, c := range cols {
				names = append(names, c.name)
			}
			return -1, fmt.Errorf("time: unknown field %q; %s", o.Time, suggest(o.Time, names))
		}
		if !cols[i].time && cols[i].typ != "DATE" {
			cols[i].typ, cols[i].time = "TIMESTAMP", true
			cols[i].expr = "to_event_time(" + quoteName(cols[i].raw) + ")"
			cols[i].guess = "a time, as asked"
		}
		return i, nil
	}
	best := -1
	for i, c := range cols {
		if c.time && (best < 0 || c.sorting > cols[best].sorting) {
			best = i
		}
	}
	return best, nil
}

type csvGuess struct {
	delim    rune
	header   bool
	encoding string
	nulls    []string
}

func sortedKeys(m map[string]bool) []string {
	var k []string
	for s := range m {
		k = append(k, s)
	}
	sort.Strings(k)
	return k
}

func renderInference(file, table string, cols []column, data [][]string, key []string, keyGuess string, seq int, g csvGuess, whole bool, o InferOptions, taken map[string]bool) string {
	var b strings.Builder
	p := func(format string, args ...any) { fmt.Fprintf(&b, format+"\n", args...) }
	part := "a sample of " + count(len(data), "record")
	if !whole {
		part = "the first " + count(len(data), "record")
	}
	p("# Made from %s of %s.", part, oneLine(file))
	p(`# Lines marked "guess" were inferred from that sample: look at each of them, then: cauce check, cauce land, cauce run batch.`)
	p("version: 1")
	if o.Storage == "" {
		p("storage: file:./data")
	} else {
		p("storage: %s", yamlText(o.Storage))
	}
	p("\ntables:\n  %s:", table)
	p("    columns:")
	for _, c := range cols {
		comment := c.guess
		if comment == "" {
			comment = "fits the " + count(c.values, "value") + " of the sample"
			if c.typ == "STRING" {
				comment = "text"
			}
		}
		p("      %s: %s # guess: %s", c.name, c.typ, oneLine(comment))
	}
	p("      ingested_at: TIMESTAMP # the time of the run; Cauce fills it")
	day := ""
	if seq >= 0 && cols[seq].time && worthDays(data, seq) {
		day = columnName("event_date", 0, taken)
		p("      %s: DATE", day)
	}
	if len(key) > 0 {
		p("    key: [%s] # guess: %s", strings.Join(key, ", "), keyGuess)
	} else {
		p("    # guess: no column identifies a row, so each record of each file is appended exactly once. If files overlap, make a")
		p("    # key of the columns that tell records apart, with a LONG column mapped to occurrence() where identical ones may occur.")
		p("    key: []")
	}
	if seq >= 0 {
		why := "the first column of times"
		if o.Time != "" {
			why = "as asked"
		} else if cols[seq].sorting == 2 {
			why = "its name says that it tells when the row changed"
		}
		if len(key) > 0 {
			p("    sequence: [%s] # guess: %s; of rows with the same key the greatest wins", cols[seq].name, why)
		} else {
			p("    # sequence: [%s] # once the table has a key: of rows with the same one the greatest wins", cols[seq].name)
		}
	}
	if day != "" {
		p("    partition_by: [%s] # guess: a folder for each day", day)
		p("    transform:\n      - set: {%s: to_date(%s)}", day, cols[seq].name)
	} else if seq >= 0 {
		p("    # guess: no partitions, since a day has few records. With many, add a DATE column set by to_date(%s).", cols[seq].name)
	}
	p("    timezone: UTC # guess: of times without a zone")
	p("\nsources:\n  files:\n    table: %s\n    kind: files", table)
	location, why := locationOf(file), "this name only; * stands for what changes from file to file"
	if strings.Contains(location, "*") {
		why = "numbers in the name change from file to file"
	}
	p("    location: [%s] # guess: %s", yamlText("raw/batch/"+location), why)
	p("    csv:")
	p("      delimiter: %s # guess: splits the records into %s", strconv.Quote(string(g.delim)), count(len(cols), "field"))
	if g.header {
		p("      header: true # guess: the first record has names only")
	} else {
		names := make([]string, len(cols))
		for i, c := range cols {
			names[i] = c.name
		}
		p("      header: false # guess: the first record looks like data")
		p("      columns: [%s] # give them better names, here, in fields and in columns", strings.Join(names, ", "))
	}
	if g.encoding != "utf-8" {
		p("      encoding: %s # guess: the file is not UTF-8", g.encoding)
	}
	comma := slices.ContainsFunc(cols, func(c column) bool { return c.comma })
	if comma {
		p(`      decimal: "," # guess: numbers such as %s`, oneLine(commaExample(cols, data)))
	}
	if len(g.nulls) > 0 {
		quoted := make([]string, len(g.nulls))
		for i, n := range g.nulls {
			quoted[i] = `"` + strings.ReplaceAll(n, `\`, `\\`) + `"`
		}
		p("      null_values: [%s] # guess: they stand among numbers or times", strings.Join(quoted, ", "))
	}
	p("    fields: # column: expression over the raw fields, which are text")
	for _, c := range cols {
		e := c.expr
		if e == "" {
			e = quoteName(c.raw)
			if strings.ContainsRune(c.raw, '.') {
				e = `"` + strings.ReplaceAll(c.raw, `"`, `""`) + `"`
			}
			if !g.header {
				e = c.name
			}
		}
		p("      %s: %s", c.name, yamlExpr(e))
	}
	p("\nschedule:\n  batch: {cron: \"0 1 * * *\", retries: 3}\n  maintenance: {cron: \"30 1 * * *\"}")
	return b.String()
}

func oneLine(s string) string {
	s = strings.Map(func(r rune) rune {
		if r < ' ' || r == 0x7f || r == 0x2028 || r == 0x2029 || r == 0x85 || r == utf8.RuneError || r == 0xfeff {
			return ' '
		}
		return r
	}, s)
	if r := []rune(s); len(r) > 160 {
		s = string(r[:159]) + "…"
	}
	return s
}

func commaExample(cols []column, data [][]string) string {
	for i, c := range cols {
		if c.comma {
			for _, r := range data {
				if strings.Contains(r[i], ",") {
					return strings.TrimSpace(r[i])
				}
			}
		}
	}
	return "1,5"
}

var plainExpr = regexp.MustCompile(`^[A-Za-z_][A-Za-z0-9_(),' .%/:-]*$`)

// yamlExpr writes an expression as a YAML scalar.
func yamlExpr(e string) string {
	if plainExpr.MatchString(e) && !strings.Contains(e, ": ") && !strings.HasSuffix(e, ":") && !booleanText[strings.ToLower(e)] && !strings.EqualFold(e, "null") {
		return e
	}
	if strings.ContainsFunc(e, func(r rune) bool { return r < ' ' }) {
		return strconv.Quote(e)
	}
	return "'" + strings.ReplaceAll(e, "'", "''") + "'"
}

// worthDays tells whether days have enough records for a folder each.
func worthDays(data [][]string, at int) bool {
	days := map[string]bool{}
	for _, r := range data {
		v := strings.TrimSpace(r[at])
		if v == "" {
			continue
		}
		if n, err := strconv.ParseInt(v, 10, 64); err == nil {
			for n >= 100_000_000_000 {
				n /= 1000
			}
			v = time.Unix(n, 0).UTC().Format(time.DateOnly)
		}
		days[v[:min(10, len(v))]] = true
	}
	return len(days) > 0 && len(data)/len(days) >= 100
}
